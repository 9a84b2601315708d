"""JAX's and TensorFlow's doors to the native kernels: derivatives, export and wrong calls."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("lcmulti_native")

from helpers_native import (
    CALL,
    KERNEL,
    SPEC,
    X,
    Y,
    all_close,
    close,
    composed,
    native,
)
from lcmulti_native import library

import lcmulti
from lcmulti import plugins

pytestmark = pytest.mark.sampled

# ---- JAX ----


@pytest.fixture
def jax_arrays():
    jnp = pytest.importorskip("jax.numpy")
    return jnp.asarray(X), jnp.asarray(KERNEL)


def test_jax_transforms(jax_arrays):
    import jax

    x, kernel = jax_arrays
    close(jax.jit(native)(x, kernel), Y)
    close(jax.vmap(native, (0, None))(x[:, None], kernel)[:, 0], Y)
    close(jax.jit(jax.vmap(native, (None, 0)))(x, kernel[None])[0], Y)
    for transform in (
        lambda f: jax.grad(lambda x, k: (f(x, k) ** 2).sum(), (0, 1))(x, kernel),
        lambda f: jax.jvp(f, (x, kernel), (x, kernel)),
        lambda f: jax.jvp(
            jax.grad(lambda x, k: (f(x, k) ** 2).sum(), (0, 1)), (x, kernel), (x, kernel)
        )[1],
    ):
        all_close(transform(native), transform(composed))
    assert "lcmulti_native" in jax.jit(native).lower(x, kernel).as_text()


def test_jax_export_is_composed(jax_arrays):
    import jax

    exported = jax.export.export(jax.jit(native))(*jax_arrays)
    assert "lcmulti_native" not in exported.mlir_module()
    close(exported.call(*jax_arrays), Y)


def test_jax_export_of_any_batch(jax_arrays):
    import jax

    x, kernel = jax_arrays
    (n,) = jax.export.symbolic_shape("n")
    abstract = jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype)
    auto = jax.jit(lambda x, kernel: lcmulti.local_conv(x, kernel, **CALL))
    close(jax.export.export(auto)(abstract, kernel).call(x, kernel), Y)


def test_jax_calls_within_each_other_do_not_deadlock(jax_arrays):
    import jax

    x, kernel = jax_arrays
    many = jax.jit(lambda x: [native(x * i, kernel) for i in range(8)])
    for i, y in enumerate(jax.block_until_ready(many(x))[1:], 1):
        close(y, i * Y)


def test_jax_refuses_an_attribute_that_lies(jax_arrays):
    import jax

    plugins.load_implementation("jax", "native")
    x, kernel = jax_arrays

    def run(x, kernel, call, shape=Y.shape):
        compute = jax.ffi.ffi_call("lcmulti_native", jax.ShapeDtypeStruct(shape, x.dtype))
        return jax.jit(lambda *arrays: compute(*arrays, call=np.array(call)))(x, kernel)

    call = library.packed("forward", SPEC.computed(), 5, "float32", None)
    close(run(x, kernel, call), Y)
    steps = [*call[:-16], *[10**9] * 16]  # steps of other arrays, which must not be used
    close(run(x, kernel, steps), Y)
    for arrays in ((x[:, :-1], kernel), (x, kernel[:-1]), (x.astype("bfloat16"), kernel)):
        with pytest.raises(Exception, match="arrays other than"):
            run(*arrays, call)
    with pytest.raises(Exception, match="arrays other than"):
        run(x, kernel, call, (5, 1, 8, 6))
    for map_ in (3, 2**32):
        with pytest.raises(Exception, match="a geometry that cannot be"):
            run(x, kernel, [map_, *call[1:]])


# ---- TensorFlow ----


@pytest.fixture
def tensorflow_arrays():
    tf = pytest.importorskip("tensorflow")
    return tf.constant(X), tf.constant(KERNEL)


def tensorflow_gradients(function, arrays):
    """Return gradients of the first order and of the second."""
    import tensorflow as tf

    with tf.GradientTape() as outer:
        outer.watch(arrays)
        with tf.GradientTape() as tape:
            tape.watch(arrays)
            total = tf.reduce_sum(function(*arrays) ** 2)
        first = tape.gradient(total, arrays)
        total = sum(tf.reduce_sum(each**2) for each in first)
    return [*first, *outer.gradient(total, arrays)]


@pytest.mark.parametrize("compiled", [None, False, True])
def test_tensorflow_gradients(tensorflow_arrays, compiled):
    """Compare gradients eagerly, in a graph, and compiled by XLA, where the call is composed."""
    import tensorflow as tf

    def ours(*arrays):
        return tensorflow_gradients(native, arrays)

    run = ours if compiled is None else tf.function(ours, jit_compile=compiled)
    all_close(run(*tensorflow_arrays), tensorflow_gradients(composed, tensorflow_arrays))


def test_tensorflow_forward_mode(tensorflow_arrays):
    import tensorflow as tf

    x, kernel = tensorflow_arrays
    with tf.autodiff.ForwardAccumulator(x, x) as accumulator:
        y = native(x, kernel)
    close(accumulator.jvp(y), Y)


def saved_module(tensorflow_arrays, folder):
    """Make a module of one function, not traced yet, and save arrays to try it with."""
    import tensorflow as tf

    x, kernel = tensorflow_arrays
    module = tf.Module()
    module.kernel = tf.Variable(kernel)
    signature = [tf.TensorSpec([None, *x.shape[1:]])]
    module.run = tf.function(lambda x: native(x, module.kernel), input_signature=signature)
    np.save(folder / "x.npy", X)
    np.save(folder / "y.npy", Y)
    return module


LOADED = """
import numpy as np, tensorflow as tf
model = tf.saved_model.load("model")
y = model.run(np.load("x.npy")).numpy()
assert np.abs(y - np.load("y.npy")).max() < 1e-3
"""


def test_tensorflow_saves_what_loads_anywhere(tensorflow_arrays, tmp_path):
    import tensorflow as tf

    module = saved_module(tensorflow_arrays, tmp_path)
    tf.saved_model.save(module, str(tmp_path / "model"))
    subprocess.run([sys.executable, "-c", LOADED], check=True, cwd=tmp_path)


@pytest.mark.slow
def test_tensorflow_saves_a_function_that_ran_with_its_operation(tensorflow_arrays, tmp_path):
    """Saving traces the function again, so the file does not need the native operation."""
    import tensorflow as tf

    module = saved_module(tensorflow_arrays, tmp_path)
    close(module.run(tensorflow_arrays[0]), Y)
    traced = module.run.get_concrete_function()
    assert "LcmultiNative" in {node.op for node in traced.graph.as_graph_def().node}
    tf.saved_model.save(module, str(tmp_path / "model"))
    subprocess.run([sys.executable, "-c", LOADED], check=True, cwd=tmp_path)


def test_tensorflow_refuses_an_attribute_that_lies(tensorflow_arrays):
    import tensorflow as tf
    from lcmulti_native import tensorflow_door

    x, kernel = tensorflow_arrays
    call = list(library.packed("forward", SPEC.computed(), 5, "float32", None))
    operation = tensorflow_door._operations.lcmulti_native
    close(operation(a=x, b=kernel, call=call), Y)
    with pytest.raises(tf.errors.InvalidArgumentError, match="shapes"):
        operation(a=x[:, :-1], b=kernel, call=call)
    with pytest.raises(tf.errors.InvalidArgumentError, match="version"):
        operation(a=x, b=kernel, call=call[:-1])
    for field, value in ((3, 99), (0, 2**32 + 1), (4 + 4 + 2 * 6, -5)):  # axes, map, kernel
        lie = list(call)
        lie[field] = value
        with pytest.raises(tf.errors.InvalidArgumentError, match="geometry"):
            operation(a=x, b=kernel, call=lie)
