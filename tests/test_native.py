"""The native kernels' doors: what each framework does around the three maps.

The maps themselves are certified: ``lcmulti certify numpy --implementation native``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lcmulti_native")

from lcmulti_native import library
from test_overhead import least_seconds_a_call

import lcmulti
from lcmulti import plugins, reference
from lcmulti.backend import Resources
from lcmulti.call_spec import spec_of_call

RESOURCES = Resources(2**28)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 7, 8, 4)).astype("float32")
KERNEL = RNG.standard_normal((3, 8, 3, 3, 2, 6)).astype("float32")
CALL = dict(
    strides=(2, 1), padding=((0, 0), (1, 1)), dilation=1, groups=2, data_format="channels_last"
)
SPEC = spec_of_call(X.shape, KERNEL.shape, None, padding_mode="zeros", **CALL)
Y = reference.forward(X, KERNEL, SPEC)


def native(x, kernel, **changes):
    return lcmulti.local_conv(x, kernel, **(CALL | {"implementation": "native"} | changes))


def composed(x, kernel):
    return native(x, kernel, implementation="composed")


def close(ours, expected, tolerance=1e-4):
    ours, expected = np.asarray(ours, "float64"), np.asarray(expected, "float64")
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max() <= tolerance * np.abs(expected).max()


def all_close(ours, expected, tolerance=1e-4):
    for each, other in zip(ours, expected, strict=True):
        close(each, other, tolerance)


def everything(implementation, threads=None, spec=SPEC, batch=5, dtype="float32"):
    rng = np.random.default_rng(1)
    shapes = ((batch, *spec.input_shape), spec.kernel_shape, (batch, *spec.output_shape))
    x, kernel, dy = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    resources = Resources(2**28, threads)
    return (
        implementation.forward(x, kernel, spec, resources),
        implementation.input_grad(dy, kernel, spec, resources),
        implementation.kernel_grad(x, dy, spec, resources),
    )


# ---- the library ----


def test_auto_takes_it_and_says_so(backend):
    owner = plugins.load_backend(backend)
    arrays = owner.from_numpy(X), owner.from_numpy(KERNEL)
    explained = lcmulti.explain(*arrays, **CALL)
    assert explained.implementation == "native"
    assert "native" in str(explained)


def test_a_window_beyond_the_cache_is_declined():
    spec = lcmulti.LocalConvSpec(
        (600, 600, 600), 1, 2, dilation=599, padding=300, data_format="channels_last",
    )  # fmt: skip
    assert library.workspace(spec.computed(), 64, "float32", 1) < 0


def test_filters_beyond_the_cache_are_declined():
    """What is accepted is computed, channels first too."""
    torch = pytest.importorskip("torch")
    door = plugins.load_implementation("torch", "native")
    for filters in (20_000, 40_000, 80_000):
        spec = lcmulti.LocalConvSpec((2, 1), filters, 1, data_format="channels_last").computed()
        if library.workspace(spec, 64, "float32", None) < 0:
            break
        x, dy = torch.rand(64, 1, 2).movedim(1, -1), torch.rand(64, filters, 2).movedim(1, -1)
        dw = door.kernel_grad(x, dy, spec, RESOURCES)
        close(dw, torch.einsum("nio,nif->iof", x, dy)[:, None])
    else:
        pytest.fail("none was declined")


@pytest.mark.parametrize(
    ("batch", "dtype", "shared", "filters", "kernel_size"),
    [
        (20, "float32", (), 24, 5),
        (3, "bfloat16", (), 24, 5),
        (70, "float32", (0,), 24, 5),
        (20, "float32", (), 4, 1),  # windows that abut
    ],
)
def test_results_do_not_depend_on_the_number_of_threads(batch, dtype, shared, filters, kernel_size):
    pytest.importorskip("ml_dtypes")
    spec = lcmulti.LocalConvSpec((40, 40, 8), filters, kernel_size, data_format="channels_last")
    spec = spec.sharing(shared).computed()
    door = plugins.load_implementation("numpy", "native")
    alone = everything(door, 1, spec, batch, dtype)
    for other in (2, 3, 20, None):
        for one, many in zip(alone, everything(door, other, spec, batch, dtype), strict=True):
            np.testing.assert_array_equal(one, many)


ROUNDING = {"bfloat16": 2**-8, "float16": 2**-11}  # of the largest


@pytest.mark.parametrize("isa", ["plain", "avx2", "avx512", "avx512bf16", "amx", "neon"])
def test_every_instruction_set_this_processor_has(isa):
    code = (
        "import ml_dtypes, numpy as np\n"
        "from test_native import *\n"
        "door = plugins.load_implementation('numpy', 'native')\n"
        "print(library.library().lcmulti_isa().decode())\n"
        "slow = plugins.load_implementation('numpy', 'reference')\n"
        "wide = lcmulti.LocalConvSpec((9, 8, 3), 16, 3, data_format='channels_last').computed()\n"
        "odd = lcmulti.LocalConvSpec((7, 6, 5), 35, 2, data_format='channels_last').computed()\n"
        "for spec in (SPEC, wide, odd):\n"
        "    for batch in (1, 3, 5, 33, 140):\n"
        "        for dtype in ('float32', 'float64', 'bfloat16', 'float16'):\n"
        "            given = None, spec, batch, dtype\n"
        "            ours, expected = everything(door, *given), everything(slow, *given)\n"
        "            all_close(ours, expected, ROUNDING.get(dtype, 1e-4))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"LCMULTI_NATIVE_ISA": isa, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if done.stdout.strip() != isa:
        pytest.skip(f"chose {done.stdout.strip()}")


def test_callers_on_many_threads_at_once():
    door = plugins.load_implementation("numpy", "native")
    spec = lcmulti.LocalConvSpec((20, 20, 8), 16, 3, data_format="channels_last").computed()
    expected, wrong = everything(door, None, spec), []

    def call():
        for _ in range(20):
            ours = everything(door, None, spec)
            wrong.append(any((a != b).any() for a, b in zip(ours, expected, strict=True)))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(wrong) == 80
    assert not any(wrong)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("first", [True, False])
def test_a_forked_child_computes(backend, first):
    """PyTorch's threads are its parent's, and OpenMP does not know that they are gone.

    In a process of its own, for the parent may have called the kernels before, or not.
    """
    code = (
        "from test_native import *\n"
        f"owner = plugins.load_backend({backend!r})\n"
        f"door = plugins.load_implementation({backend!r}, 'native')\n"
        "spec = lcmulti.LocalConvSpec((40, 40, 8), 16, 3, data_format='channels_last').computed()\n"
        "shapes = (5, *spec.input_shape), spec.kernel_shape, (5, *spec.output_shape)\n"
        "x, kernel, dy = (owner.from_numpy(RNG.random(shape)) for shape in shapes)\n"
        "(x + x) @ x.swapaxes(-1, -2)\n"
        "def run():\n"
        "    maps = [door.forward(x, kernel, spec, RESOURCES)]\n"
        "    maps.append(door.input_grad(dy, kernel, spec, RESOURCES))\n"
        "    maps.append(door.kernel_grad(x, dy, spec, RESOURCES))\n"
        "    return b''.join(owner.to_numpy(each).tobytes() for each in maps)\n"
        f"first = run() if {first} else None\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if first in (None, run()) and run() else 1)\n"
        "assert os.waitpid(child, 0) == (child, 0)\n"
    )
    if backend == "torch":
        pytest.importorskip("torch")
    path = {"PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run([sys.executable, "-c", code], env=os.environ | path, check=True, timeout=120)


@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake")
def test_without_a_compiler_the_build_says_what_to_do(tmp_path):
    source = Path(__file__).parents[1] / "backends" / "native"
    done = subprocess.run(
        ["cmake", "-S", str(source), "-B", str(tmp_path)],
        env=os.environ | {"CXX": str(tmp_path / "none")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "No C++ compiler was found" in done.stderr
    assert "apt install g++" in done.stderr


def test_auto_takes_it_only_where_it_is_quicker():
    def taken(backend, batch, size, filters, window, **rest):
        spec = lcmulti.LocalConvSpec(size, filters, window, data_format="channels_last", **rest)
        return lcmulti.explain(spec, batch=batch, backend=backend).implementation

    assert taken("numpy", 64, (1, 1, 2048), 2048, 1) == "blocked"  # one matrix product
    assert taken("numpy", 8, (1, 1, 64), 64, 1) == "native"  # a small one
    for backend in {"torch", "jax"} & {*plugins.registry().backends}:
        if not plugins.is_installed(plugins.registry().backends[backend]):
            continue
        assert taken(backend, 1, (9, 9, 64), 64, 3, groups=64) != "native"
        assert taken(backend, 32, (9, 9, 64), 64, 3, groups=64) == "native"
    assert taken("numpy", 1, (9, 9, 64), 64, 3, groups=64) == "native"


# ---- NumPy ----


@pytest.mark.parametrize("view", ["first", "backwards", "strided", "broadcast", "unaligned"])
def test_numpy_reads_any_memory_layout(view):
    x = {
        "first": lambda: np.moveaxis(np.moveaxis(X, -1, 1).copy(), 1, -1),
        "backwards": lambda: X[::-1, :, ::-1],
        "strided": lambda: np.repeat(X, 2, axis=2)[:, :, ::2],
        "broadcast": lambda: np.broadcast_to(X[:1], X.shape),
        "unaligned": lambda: np.frombuffer(b"x" + X.tobytes(), "float32", offset=1).reshape(
            X.shape
        ),
    }[view]()
    close(native(x, KERNEL), reference.forward(np.ascontiguousarray(x), KERNEL, SPEC))


@pytest.mark.parametrize("filters", [2, 4])
def test_windows_of_an_array_are_read_where_they_overlap(filters):
    """Channels and positions are neighbours both: the same elements."""
    line = RNG.standard_normal((3, 40)).astype("float32")
    windows = np.lib.stride_tricks.sliding_window_view(line, filters, axis=1)
    kernel = RNG.standard_normal((windows.shape[1], 4, 1, filters)).astype("float32")
    call = dict(strides=4, data_format="channels_last")
    ours = lcmulti.local_conv_transpose(windows, kernel, implementation="native", **call)
    same = lcmulti.local_conv_transpose(windows.copy(), kernel, implementation="reference", **call)
    close(ours, same)


def test_numpy_overhead():
    """A warm call of almost no work, all Python included: under 10 microseconds beyond dispatch."""
    spec = lcmulti.LocalConvSpec((2, 1), 1, 1, data_format="channels_last").computed()
    door = plugins.load_implementation("numpy", "native")
    x, kernel = np.ones((1, 2, 1), "float32"), np.ones((2, 1, 1, 1), "float32")

    least = least_seconds_a_call(lambda: door.forward(x, kernel, spec, RESOURCES), 10e-6)
    assert least < 10e-6, f"{least * 1e6:.1f} microseconds"


# ---- PyTorch ----


@pytest.fixture
def torch_arrays():
    torch = pytest.importorskip("torch")
    return tuple(torch.tensor(each, requires_grad=True) for each in (X, KERNEL))


def torch_gradients(function, arrays, order):
    import torch

    total = function(*arrays).square().sum()
    grads = ()
    for left in range(order, 0, -1):
        grads = torch.autograd.grad(total, arrays, create_graph=left > 1)
        total = sum(each.square().sum() for each in grads)
    return [each.detach() for each in grads]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_torch_gradients(torch_arrays, order):
    ours = torch_gradients(native, torch_arrays, order)
    all_close(ours, torch_gradients(composed, torch_arrays, order))


def test_torch_compile_takes_it_whole(torch_arrays):
    import torch
    from torch._dynamo.backends.common import aot_autograd

    graphs = []

    def keep(graph, inputs):
        graphs.append(str(graph.graph))
        return graph

    compiled = torch.compile(
        native, fullgraph=True, backend=aot_autograd(fw_compiler=keep, bw_compiler=keep)
    )
    all_close(
        torch_gradients(compiled, torch_arrays, 1), torch_gradients(composed, torch_arrays, 1)
    )
    forward, backward = graphs
    assert "lcmulti_native.forward" in forward
    assert "lcmulti_native.input_grad" in backward
    assert "lcmulti_native.kernel_grad" in backward


def test_torch_compile_of_any_batch(torch_arrays):
    import torch

    x, kernel = torch_arrays
    compiled = torch.compile(native, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (5, 2, 3):
        close(compiled(x[:batch], kernel).detach(), Y[:batch])


def test_torch_operation_is_well_formed(torch_arrays):
    import torch

    plugins.load_implementation("torch", "native")
    call = library.packed("forward", SPEC.computed(), 0, "float32", None)
    torch.library.opcheck(torch.ops.lcmulti_native.forward, (*torch_arrays, call))


def test_torch_transforms_are_handed_over(torch_arrays):
    import torch

    x, kernel = (each.detach() for each in torch_arrays)

    def auto(x):
        return lcmulti.local_conv(x, kernel, **CALL)

    auto(x)
    torch.compile(auto, backend="eager")(x)  # plans the same call for a compiler
    value, tangent = torch.func.jvp(auto, (x,), (x,))
    close(value, Y)
    close(tangent, Y)
    close(torch.func.vmap(auto)(x[None])[0], Y)
    assert torch.func.grad(lambda x: auto(x).sum())(x).abs().sum() > 0


def test_torch_export_is_composed(torch_arrays):
    import torch

    class Layer(torch.nn.Module):
        def __init__(self, kernel):
            super().__init__()
            self.kernel = torch.nn.Parameter(kernel.detach())

        def forward(self, x):
            return lcmulti.local_conv(x, self.kernel, **CALL)

    x, kernel = torch_arrays
    exported = torch.export.export(Layer(kernel), (x.detach(),))
    assert "lcmulti_native" not in str(exported.graph)
    close(exported.module()(x.detach()).detach(), Y)


def test_torch_autocast(torch_arrays):
    import torch

    with torch.autocast("cpu", torch.bfloat16):
        y = native(*torch_arrays)
    assert y.dtype == torch.bfloat16
    close(y.detach().float(), Y, 2e-2)


def test_torch_channels_first_and_negated_views(torch_arrays):
    import torch

    x, kernel = (each.detach() for each in torch_arrays)
    y = native(x.movedim(-1, 1).contiguous(), kernel, data_format="channels_first")
    close(y.movedim(1, -1), Y)
    negated = torch.complex(x, -x).conj().imag  # x again, by a bit that says so
    assert negated.is_neg()
    close(native(negated, kernel), Y)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted by Linux")
@pytest.mark.parametrize("threads", [None, 3])
def test_torch_lends_its_threads(threads):
    """Where as many are asked for as it has: others would be awake beside them."""
    code = (
        "import torch\n"
        "from pathlib import Path\n"
        "from test_native import *\n"
        "torch.set_num_threads(4)\n"
        "door = plugins.load_implementation('torch', 'native')\n"
        "spec = lcmulti.LocalConvSpec((40, 40, 8), 16, 3, data_format='channels_last').computed()\n"
        "x, kernel = torch.rand(5, *spec.input_shape), torch.rand(*spec.kernel_shape)\n"
        "torch.rand(1 << 20) + 1\n"
        "before = len(list(Path('/proc/self/task').iterdir()))\n"
        f"door.forward(x, kernel, spec, Resources(2**28, {threads}))\n"
        "print(len(list(Path('/proc/self/task').iterdir())) - before)\n"
    )
    pytest.importorskip("torch")
    from lcmulti_native.torch_door import _openmp

    if _openmp() is None:
        pytest.skip("an OpenMP that is not GNU's")
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) == (0 if threads is None else threads - 1)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("size", [(6, 7), (1, 23), (3, 47)])
@pytest.mark.parametrize(("channels", "filters", "groups"), [(4, 2, 1), (3, 5, 1), (6, 4, 2)])
def test_torch_pixels_whose_channels_come_first(channels, filters, groups, size, apart):
    """Lanes are positions there, and what is left of a row overlaps the lanes before it."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    wider = torch.randn(9, channels, size[0], size[1] + apart)  # rows with a gap after each
    x = wider[..., : size[1]].requires_grad_()
    kernel = torch.randn(*size, 1, 1, channels // groups, filters, requires_grad=True)
    dy = torch.randn(9, filters, *size)
    call = dict(groups=groups, data_format="channels_first", implementation="native")
    y = lcmulti.local_conv(x, kernel, **call)
    inputs = x.unflatten(1, (groups, -1)).double()
    weights = kernel[..., 0, 0, :, :].unflatten(-1, (groups, -1)).double()
    expected = torch.einsum("ngchw,hwcgf->ngfhw", inputs, weights).flatten(1, 2)
    ours, theirs = (
        torch.autograd.grad(result, (x, kernel), dy.to(result.dtype)) for result in (y, expected)
    )
    all_close([y.detach(), *ours], [expected.detach(), *theirs], 1e-6)
    with lcmulti.config(threads=7):
        again = lcmulti.local_conv(x, kernel, **call)
        many = torch.autograd.grad(again, (x, kernel), dy)
    for one, other in zip((y, *ours), (again, *many), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("batch", [1, 16])
def test_float16_is_rounded_as_numpy_does(batch):
    """To nearest, ties to even, whatever it is: sums of every number and another."""
    every = np.arange(2**16, dtype="uint16")
    pairs = np.stack([every, every * np.uint16(40503)], -1).view("float16")
    x = pairs.reshape(batch, -1, 2)
    spec = lcmulti.LocalConvSpec(x.shape[1:], 1, 1, data_format="channels_last").computed()
    door = plugins.load_implementation("numpy", "native")
    with np.errstate(all="ignore"):
        y = door.forward(x, np.ones(spec.kernel_shape, "float16"), spec, RESOURCES)
        expected = x.astype("float32").sum(-1, keepdims=True).astype("float16")
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("first", [False, True])
def test_torch_results_are_written_in_their_order(torch_arrays, first):
    """By the kernels, and not copied into it after."""
    import torch
    from lcmulti_torch.rules import is_channels_first

    door = plugins.load_implementation("torch", "native")
    shapes = (5, *SPEC.input_shape), (5, *SPEC.output_shape)
    x, dy = (torch.randn(shape) for shape in shapes)
    if first:
        x, dy = (a.movedim(-1, 1).contiguous().movedim(1, -1) for a in (x, dy))
    kernel = torch.from_numpy(KERNEL)
    y, dx = door.forward(x, kernel, SPEC, RESOURCES), door.input_grad(dy, kernel, SPEC, RESOURCES)
    assert is_channels_first(y) == is_channels_first(dx) == first
    close(y, reference.forward(x.numpy(), KERNEL, SPEC))


def test_torch_operation_refuses_a_call_that_lies(torch_arrays):
    import torch

    plugins.load_implementation("torch", "native")
    x, kernel = (each.detach() for each in torch_arrays)
    call = library.packed("forward", SPEC.computed(), 0, "float32", None)
    run = torch.ops.lcmulti_native.forward
    close(run(x, kernel, call), Y)
    for arrays in ((x[:, :-1], kernel), (x, kernel[:-1]), (x.double(), kernel.double())):
        with pytest.raises(ValueError, match="arrays other than"):
            run(*arrays, call)


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
    steps = [*call[:-16], *[10**9] * 16]  # of arrays that are none of these
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
    """Of the first order and the second."""
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
    """Eagerly, in a graph, and compiled by XLA, where it is composed."""
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


def test_tensorflow_saved_model(tensorflow_arrays, tmp_path):
    """Loaded in a fresh process that imports the door first."""
    import tensorflow as tf

    x, kernel = tensorflow_arrays
    module = tf.Module()
    module.kernel = tf.Variable(kernel)
    signature = [tf.TensorSpec([None, *x.shape[1:]])]
    module.run = tf.function(lambda x: native(x, module.kernel), input_signature=signature)
    assert module.run.get_concrete_function().output_shapes.as_list() == [None, *Y.shape[1:]]
    tf.saved_model.save(module, str(tmp_path / "model"))
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    code = (
        "import numpy as np, tensorflow as tf, lcmulti_native.tensorflow_door\n"
        "model = tf.saved_model.load('model')\n"
        "y = model.run(np.load('x.npy')).numpy()\n"
        "assert np.abs(y - np.load('y.npy')).max() < 1e-3"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


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
