"""The TensorFlow backend: graphs, XLA, derivatives of every mode and order, and SavedModels."""

import subprocess
import sys

import numpy as np
import pytest

import lcmulti
from lcmulti import plugins
from lcmulti.algorithms import reference
from lcmulti.plugins.contract import Resources

tf = pytest.importorskip("tensorflow")

from helpers_tensorflow import (  # noqa: E402
    GENEROUS,
    GEOMETRIES,
    NAMES,
    TIGHT,
    arrays,
    call,
    close,
    expected_maps,
    value_and_gradients,
)

pytestmark = [pytest.mark.tensorflow, pytest.mark.sampled]


@pytest.mark.parametrize("mode", ["eager", "function", "xla"])
@pytest.mark.parametrize("name", NAMES)
def test_modes(name, mode):
    geometry = {"disjoint": "disjoint, remainder", "conv": "convolution"}.get(name, "2d")
    spec = GEOMETRIES[geometry]
    x, kernel, dy = arrays(spec)
    kernel_shared = tf.reshape(kernel, spec.kernel_shape)

    def step(x, kernel, dy):
        return value_and_gradients(call(spec, name), x, kernel, dy)

    if mode != "eager":
        step = tf.function(step, autograph=False, jit_compile=mode == "xla")
    with lcmulti.config(max_workspace=TIGHT if name == "blocked" else GENEROUS):
        actual = step(x, kernel_shared, dy)
    for ours, theirs in zip(actual, expected_maps(spec, x, kernel, dy), strict=True):
        close(ours, theirs)


def test_gradients_are_those_of_tensorflow_itself():
    """Three orders of complex gradients equal those that TensorFlow derives from composed maps."""
    spec = GEOMETRIES["2d"]
    x, kernel, _ = arrays(spec, dtype="complex128")
    composed, r = plugins.load_implementation("tensorflow", "composed"), Resources(GENEROUS)

    def third(function):
        with tf.GradientTape() as outer:
            outer.watch((x, kernel))
            with tf.GradientTape() as middle:
                middle.watch((x, kernel))
                with tf.GradientTape() as inner:
                    inner.watch((x, kernel))
                    loss = tf.reduce_sum(function(x, kernel) ** 3)
                first = inner.gradient(loss, (x, kernel))
                mixed = tf.reduce_sum(first[0] ** 2) + tf.reduce_sum(first[1] ** 2)
            second = middle.gradient(mixed, (x, kernel))
            mixed = tf.reduce_sum(second[0] ** 2) + tf.reduce_sum(second[1] ** 2)
        return (*first, *second, *outer.gradient(mixed, (x, kernel)))

    native = third(lambda x, kernel: composed.forward(x, kernel, spec, r))
    for mode in (lambda f: f, tf.function):
        ours = mode(lambda: third(call(spec, "blocked")))()
        for a, b in zip(ours, native, strict=True):
            scale = np.abs(b).max()
            close(a / scale, b / scale, scale=4096)


def test_gradient_equals_finite_differences():
    spec = GEOMETRIES["strides, uneven padding"]
    x, kernel, _ = arrays(spec, batch=2)
    step = 1e-5
    direction, along = arrays(spec, batch=2, seed=1)[:2]

    def slope(x, kernel):
        with tf.GradientTape() as tape:
            tape.watch((x, kernel))
            loss = tf.reduce_sum(tf.sin(call(spec)(x, kernel)))
        a, b = tape.gradient(loss, (x, kernel))
        return tf.reduce_sum(a * direction) + tf.reduce_sum(b * along)

    with tf.GradientTape() as tape:
        tape.watch((x, kernel))
        value = slope(x, kernel)
    a, b = tape.gradient(value, (x, kernel))
    second = tf.reduce_sum(a * direction) + tf.reduce_sum(b * along)
    up = slope(x + step * direction, kernel + step * along)
    down = slope(x - step * direction, kernel - step * along)
    np.testing.assert_allclose(second, (up - down) / (2 * step), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("graph", ["eager", "accumulator in function", "function in accumulator"])
def test_forward_accumulator_values(graph, dtype):
    spec = GEOMETRIES["groups"]
    x, kernel, _ = arrays(spec, dtype=dtype)
    dx, dkernel, _ = arrays(spec, dtype=dtype, seed=1)
    jvp = plugins.load_backend("tensorflow").jvp
    function = call(spec)
    if graph == "function in accumulator":
        function = tf.function(function, autograph=False)

    def tangent(x, kernel):
        return jvp(function, (x, kernel), (dx, dkernel))[1]

    if graph == "accumulator in function":
        tangent = tf.function(tangent, autograph=False)
    actual = tangent(x, kernel)
    x, kernel, dx, dkernel = (each.numpy() for each in (x, kernel, dx, dkernel))
    expected = reference.forward(dx, kernel, spec) + reference.forward(x, dkernel, spec)
    close(actual, expected)


@pytest.mark.parametrize("graph", [False, True])
def test_forward_over_reverse_equals_reverse_over_reverse(graph):
    spec = GEOMETRIES["2d"]
    x, kernel, _ = arrays(spec)
    dx, dkernel, _ = arrays(spec, seed=1)

    def gradients(x, kernel):
        with tf.GradientTape() as tape:
            tape.watch((x, kernel))
            loss = tf.reduce_sum(call(spec)(x, kernel) ** 3)
        return tape.gradient(loss, (x, kernel))

    def forward(x, kernel):
        with tf.autodiff.ForwardAccumulator((x, kernel), (dx, dkernel)) as accumulator:
            first = gradients(x, kernel)
        return accumulator.jvp(first)

    def reverse(x, kernel):
        with tf.GradientTape() as tape:
            tape.watch((x, kernel))
            a, b = gradients(x, kernel)
            along = tf.reduce_sum(a * dx) + tf.reduce_sum(b * dkernel)
        return tape.gradient(along, (x, kernel))

    wrap = tf.function(autograph=False) if graph else (lambda function: function)
    for a, b in zip(wrap(forward)(x, kernel), reverse(x, kernel), strict=True):
        scale = np.abs(b).max()
        close(a / scale, b / scale, scale=4096)


def test_eager_gradients_nobody_asks_for_are_not_computed(monkeypatch):
    spec = GEOMETRIES["2d"]
    x, kernel, dy = arrays(spec)
    blocked, asked = plugins.load_implementation("tensorflow", "blocked"), []
    for name in ("input_grad", "kernel_grad"):
        original = getattr(type(blocked), name)

        def spy(self, *arguments, name=name, original=original):
            asked.append(name)
            return original(self, *arguments)

        monkeypatch.setattr(type(blocked), name, spy)
    # A limit that was not used before makes dispatch plan the call anew.
    with lcmulti.config(max_workspace=GENEROUS + 1), tf.GradientTape() as tape:
        tape.watch(kernel)
        y = call(spec)(x, kernel)
    close(tape.gradient(y, kernel, dy), expected_maps(spec, x, kernel, dy)[2])
    assert asked == ["kernel_grad"]


def test_vjp_is_not_conjugated():
    spec = GEOMETRIES["2d"]
    x, kernel, dy = arrays(spec, dtype="complex128")
    y, (dx, dkernel) = plugins.load_backend("tensorflow").vjp(call(spec), (x, kernel), dy)
    x, kernel, dy = x.numpy(), kernel.numpy(), dy.numpy()
    close(y, reference.forward(x, kernel, spec))
    close(dx, reference.input_grad(dy, kernel, spec))
    close(dkernel, reference.kernel_grad(x, dy, spec))


@pytest.mark.parametrize("limit", [GENEROUS, TIGHT])
@pytest.mark.parametrize("geometry", ["2d", "groups", "disjoint, remainder", "convolution"])
def test_unknown_batch(geometry, limit):
    spec = GEOMETRIES[geometry]
    shapes = (None, *spec.input_shape), spec.kernel_shape, (None, *spec.output_shape)
    signature = [tf.TensorSpec(shape, tf.float64) for shape in shapes]

    @tf.function(autograph=False, input_signature=signature)
    def step(x, kernel, dy):
        with lcmulti.config(max_workspace=limit):
            name = "blocked" if limit == TIGHT else "auto"
            return value_and_gradients(call(spec, name), x, kernel, dy)

    for batch in (0, 1, 7):
        x, kernel, dy = arrays(spec, batch)
        for ours, theirs in zip(
            step(x, kernel, dy), expected_maps(spec, x, kernel, dy), strict=True
        ):
            assert ours.shape == theirs.shape
            close(ours, theirs)


class Layer(tf.Module):
    def __init__(self, spec, kernel):
        super().__init__()
        self.kernel = tf.Variable(kernel)
        self.function = call(spec)
        signature = [tf.TensorSpec((None, *spec.input_shape), kernel.dtype)]
        self.apply = tf.function(self._apply, autograph=False, input_signature=signature)

    def _apply(self, x):
        return self.function(x, self.kernel)


def test_saved_model_round_trip(tmp_path):
    spec = GEOMETRIES["strides, uneven padding"]
    x, kernel, dy = arrays(spec)
    tf.saved_model.save(Layer(spec, kernel), str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = loaded.apply(x)
    actual = (y, *tape.gradient(y, (x, loaded.kernel), dy))
    for ours, theirs in zip(actual, expected_maps(spec, x, kernel, dy), strict=True):
        close(ours, theirs)


ORDERS = """
import sys, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
x = tf.ones([int(n) for n in sys.argv[2:]], tf.float64)

def first(x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(model.apply(x) ** 2)
    return tape.gradient(loss, x)

print(float(tf.reduce_sum(first(x))))
with tf.GradientTape() as tape:
    tape.watch(x)
    loss = tf.reduce_sum(first(x) ** 2)
print(tape.gradient(loss, x))
"""


def test_second_order_after_loading_raises(tmp_path):
    """TensorFlow saves custom gradients of the first order; the second must be an error."""
    spec = GEOMETRIES["2d"]
    x, kernel, _ = arrays(spec)
    layer = Layer(spec, kernel)
    tf.saved_model.save(layer, str(tmp_path))
    # In this process the gradients are still registered; a fresh one knows what was saved.
    command = [sys.executable, "-c", ORDERS, str(tmp_path), *map(str, x.shape)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    x, kernel = np.ones(x.shape), kernel.numpy()
    expected = reference.input_grad(2 * reference.forward(x, kernel, spec), kernel, spec).sum()
    np.testing.assert_allclose(float(done.stdout), expected, rtol=1e-9)
    assert "LookupError: No gradient defined" in done.stderr


MAPPED = """
import sys
import tensorflow as tf
import numpy as np
import lcmulti

rng = np.random.default_rng(0)
shapes = (3, 2, 7, 6, 4), (2, 1, 1, 3, 2, 4, 4), (5, 5, 2)
x, basis, coefficients = (rng.normal(size=each).astype("float32") for each in shapes)
named = {"implementation": sys.argv[1]}
functions = {
    "shared": lambda x: lcmulti.local_conv(x, tf.constant(basis[0]), **named),
    "low rank": lambda x: lcmulti.local_conv_low_rank(
        x, *map(tf.constant, (basis, coefficients)), **named
    ),
    "transposed": lambda x: lcmulti.local_conv_transpose(x, tf.constant(basis[0]), **named),
}
for name, function in functions.items():
    function(tf.constant(x[0]))
    found = tf.vectorized_map(function, tf.constant(x))
    wanted = tf.stack([function(each) for each in tf.constant(x)])
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
print("as one by one")
"""


@pytest.mark.parametrize("name", ["composed", pytest.param("auto", marks=pytest.mark.slow)])
def test_vectorized_map_of_one_kernel(name):
    """In a process of its own: TensorFlow may crash on a stack of one matrix."""
    command = [sys.executable, "-c", MAPPED, name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "as one by one\n", done.stderr[-2000:]
