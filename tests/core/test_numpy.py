"""NumPy's implementations agree with the reference, within memory bounds, on unusual arrays."""

import threading
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import specs

import lcmulti
from lcmulti import plugins
from lcmulti.algorithms import reference
from lcmulti.dtypes import DTYPES
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.numpy.backend import blocked
from lcmulti.plugins.contract import Problem, Resources

RNG = np.random.default_rng(0)
WIDE = {"complex64": "complex128", "complex128": "complex128"}

GEOMETRIES = {
    "window sides and channels all different": dict(input_shape=(9, 8, 5), kernel_size=(3, 2)),
    "3D": dict(input_shape=(5, 6, 7, 2), kernel_size=(2, 3, 1), padding=1),
    "4D": dict(input_shape=(3, 4, 5, 3, 2), kernel_size=(2, 1, 3, 2)),
    "stride above the kernel": dict(input_shape=(11, 3), kernel_size=2, strides=4),
    "stride equal to the kernel, with a remainder": dict(
        input_shape=(11, 3), kernel_size=3, strides=3
    ),
    "kernel as large as the input": dict(input_shape=(4, 3, 2), kernel_size=(4, 3)),
    "one channel": dict(input_shape=(6, 6, 1), kernel_size=3),
    "stride and dilation": dict(
        input_shape=(13, 12, 2), kernel_size=(3, 2), strides=(2, 3), dilation=(3, 2), padding=2
    ),
    "groups": dict(input_shape=(7, 6, 4), kernel_size=(3, 2), groups=2, strides=(2, 1)),
    "even kernel, keras_same": dict(
        input_shape=(9, 8, 2), kernel_size=(4, 2), strides=2, padding="keras_same"
    ),
    "windows that see nothing but padding": dict(input_shape=(4, 2), kernel_size=2, padding=5),
    "shared along rows": dict(
        input_shape=(9, 8, 4), kernel_size=(3, 2), shared_axes=(0,), groups=2, padding="same"
    ),
    "convolution": dict(input_shape=(9, 8, 4), kernel_size=(3, 2), shared_axes=(0, 1)),
}


def problem_of(spec, batch, dtype, max_workspace=2**28):
    return Problem(spec, batch, dtype, "cpu", False, Resources(max_workspace))


def arrays_of(spec, batch, dtype):
    """Draw x, kernel and dy of a dtype; return them and their values in the accumulator dtype."""
    wide = WIDE.get(dtype, "float64")
    narrow = getattr(ml_dtypes, dtype) if dtype == "bfloat16" else dtype

    def make(*shape):
        values = RNG.normal(size=shape)
        if wide == "complex128":
            values = values + 1j * RNG.normal(size=shape)
        return values.astype(narrow)

    arrays = (
        make(batch, *spec.input_shape),
        make(*spec.kernel_shape),
        make(batch, *spec.output_shape),
    )
    return arrays, tuple(array.astype(wide) for array in arrays)


def maps(implementation, x, kernel, dy, spec, resources):
    return {
        "forward": implementation.forward(x, kernel, spec, resources),
        "input_grad": implementation.input_grad(dy, kernel, spec, resources),
        "kernel_grad": implementation.kernel_grad(x, dy, spec, resources),
    }


class Exact:
    """The reference with the signature of an implementation."""

    forward = staticmethod(lambda x, kernel, spec, _: reference.forward(x, kernel, spec))
    input_grad = staticmethod(lambda dy, kernel, spec, _: reference.input_grad(dy, kernel, spec))
    kernel_grad = staticmethod(lambda x, dy, spec, _: reference.kernel_grad(x, dy, spec))


def check(spec, batch, dtype, implementation, max_workspace):
    """Assert that each element is within ``(n + 2) u |x| conv |w|`` (Higham 2002, section 3.1)."""
    narrow, wide = arrays_of(spec, batch, dtype)
    resources = Resources(max_workspace)
    got = maps(implementation, *narrow, spec, resources)
    want = maps(Exact, *wide, spec, resources)
    size = maps(Exact, *map(np.abs, wide), spec, resources)
    # n is the largest number of products in one element of the three maps.
    outputs = int(np.prod(spec.output_size))
    terms = max(spec.terms, spec.filters * outputs, batch * outputs)
    facts = DTYPES[dtype]
    roundoff = DTYPES[facts.accumulator].roundoff
    if dtype.startswith("complex"):
        roundoff *= 2 * 2**0.5  # Higham 2002, lemma 3.5
    for name, array in got.items():
        assert array.dtype == narrow[0].dtype, name
        assert array.shape == want[name].shape, name
        bound = (terms + 2) * roundoff * size[name]
        if facts.is_half:  # plus one rounding to the dtype of the elements
            bound = bound + facts.roundoff * (np.abs(want[name]) + bound)
        if dtype == "float16":  # plus half its smallest number, for underflow (Higham 2002, (2.8))
            bound = bound + 2.0**-25
        error = np.abs(array.astype(want[name].dtype) - want[name])
        assert (error <= bound).all(), f"{name}: {np.max(error - bound)} over the bound"


SERVED = [
    pytest.param(entry.name, dtype, id=f"{entry.name}-{dtype}")
    for entry in plugins.registry().implementations_of("numpy")
    for dtype in entry.dtypes
]


@pytest.mark.parametrize("name, dtype", SERVED)
@pytest.mark.parametrize("max_workspace", [2**28, 1500], ids=["one block", "many blocks"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_geometries(geometry, max_workspace, name, dtype):
    implementation = plugins.load_implementation("numpy", name)
    arguments = dict(filters=6) | GEOMETRIES[geometry]
    spec = LocalConvSpec(**arguments).computed()
    for batch in (0, 1, 3):
        check(spec, batch, dtype, implementation, max_workspace)


@given(specs(), st.integers(0, 3), st.sampled_from([0, 300, 2000, 2**28]))
def test_any_geometry(spec, batch, max_workspace):
    check(spec, batch, "float32", blocked, max_workspace)


@pytest.mark.parametrize(
    "mode, numpy_mode", [("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")]
)
def test_padding_modes(rng, mode, numpy_mode):
    x, kernel = rng.normal(size=(2, 6, 5, 3)), rng.normal(size=(8, 5, 2, 3, 3, 4))
    bias = rng.normal(size=(8, 1, 4))
    y = lcmulti.local_conv(x, kernel, bias, padding=((2, 1), (0, 2)), padding_mode=mode)
    padded = np.pad(x, ((0, 0), (2, 1), (0, 2), (0, 0)), mode=numpy_mode)
    np.testing.assert_array_equal(y, lcmulti.local_conv(padded, kernel, bias))


def test_channels_first_is_channels_last_seen_otherwise(rng):
    x, kernel, bias = (
        rng.normal(size=(2, 6, 5, 3)),
        rng.normal(size=(5, 3, 2, 3, 3, 4)),
        rng.normal(size=(5, 3, 4)),
    )
    last = lcmulti.local_conv(x, kernel, bias)
    first = lcmulti.local_conv(np.moveaxis(x, -1, 1), kernel, bias, data_format="channels_first")
    assert first.shape == (2, 4, 5, 3)
    np.testing.assert_array_equal(np.moveaxis(first, 1, -1), last)


def test_against_the_sum_written_out():
    """The definition itself, one product at a time, with nothing of lcmulti but the call."""
    x, kernel, bias = (
        RNG.normal(size=(2, 7, 6)),
        RNG.normal(size=(4, 2, 3, 4)),
        RNG.normal(size=(4, 4)),
    )
    y = lcmulti.local_conv(x, kernel, bias, strides=2, padding=((1, 2),), dilation=3, groups=2)
    for n, o, f in np.ndindex(*y.shape):
        total = bias[o, f]
        for t in range(2):
            i = o * 2 + t * 3 - 1
            for c in range(3):
                if 0 <= i < 7:
                    total += x[n, i, 3 * (f // 2) + c] * kernel[o, t, c, f]
        np.testing.assert_allclose(y[n, o, f], total, rtol=1e-13, atol=1e-13)


def test_a_nan_reaches_the_outputs_that_see_it_alone():
    x = np.ones((2, 9, 8, 2))
    x[1, 4, 3, 0], x[0, 0, 0, 1] = np.nan, np.inf
    kernel = np.zeros((7, 7, 3, 2, 2, 3))
    for max_workspace in ("1KiB", "256MiB"):
        # Infinity times a zero weight is NaN, about which NumPy warns.
        with lcmulti.config(max_workspace=max_workspace), np.errstate(invalid="ignore"):
            wrong = ~np.isfinite(lcmulti.local_conv(x, kernel)).all(-1)
        expected = np.zeros((2, 7, 7), bool)
        expected[1, 2:5, 2:4] = expected[0, 0, 0] = True
        np.testing.assert_array_equal(wrong, expected)


MEMORY = {
    "wide windows": (dict(input_shape=(24, 24, 8), kernel_size=7, filters=8), 8),
    "padded": (dict(input_shape=(16, 16, 8), kernel_size=3, padding=6, filters=4), 16),
    "1D, many channels": (dict(input_shape=(100, 32), kernel_size=5, filters=32), 16),
    "convolution": (
        dict(input_shape=(24, 24, 8), kernel_size=5, filters=8, shared_axes=(0, 1)),
        16,
    ),
    "no overlap": (dict(input_shape=(4096, 4), kernel_size=16, strides=16, filters=8), 16),
}


@pytest.mark.sampled
@pytest.mark.parametrize("dtype", ["float32", "float16", "complex128"])
@pytest.mark.parametrize("limit", [2**28, 2**18], ids=["cache", "256KiB"])
@pytest.mark.parametrize("case", MEMORY)
def test_blocked_holds_no_more_than_it_says(case, limit, dtype):
    arguments, batch = MEMORY[case]
    spec = LocalConvSpec(**arguments)
    problem = problem_of(spec, batch, dtype, limit)
    (x, kernel, dy), _ = arrays_of(spec, batch, dtype)
    promised = blocked.workspace(problem)
    # Memory other than our arrays: objects of Python, and a ufunc's buffers of two operands.
    allowance = 2**16 + 2 * np.getbufsize() * DTYPES[DTYPES[dtype].accumulator].itemsize
    if dtype != "float16":  # its float32 gradients count as workspace, but are not limited
        assert promised <= limit
    for name, arguments in (
        ("forward", (x, kernel)),
        ("input_grad", (dy, kernel)),
        ("kernel_grad", (x, dy)),
    ):
        compute = getattr(blocked, name)
        compute(*arguments, spec, problem.resources)  # fills caches
        tracemalloc.start()
        result = compute(*arguments, spec, problem.resources)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        held = peak - result.nbytes
        assert held <= promised + allowance, f"{name}: {held:,} held, {promised:,} promised"


def awkward(array):
    """Yield the same values in every memory layout, and the layout's name."""
    reverse = (slice(None, None, -1),) * array.ndim
    wider = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wider[..., ::2] = array
    read_only = array.copy()
    read_only.flags.writeable = False
    yield "negative strides", array[reverse].copy()[reverse]
    yield "not contiguous", wider[..., ::2]
    yield "Fortran order", np.asfortranarray(array)
    yield "read-only", read_only
    yield "broadcast", np.broadcast_to(array[:1], array.shape)
    yield "unaligned", unaligned(array)


def unaligned(array):
    buffer = np.zeros(array.nbytes + 1, np.uint8)[1:]
    view = buffer.view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


@pytest.mark.parametrize("name", ["blocked", "reference"])
def test_memory_of_every_kind(name, rng):
    x, kernel = rng.normal(size=(3, 7, 6, 4)), rng.normal(size=(5, 3, 3, 4, 4, 2))
    x[1:], kernel[1:] = x[:1], kernel[:1]  # a broadcast array has the same values
    want = lcmulti.local_conv(x, kernel, implementation=name)
    for (kind, x2), (_, kernel2) in zip(awkward(x), awkward(kernel), strict=True):
        before = x2.copy(), kernel2.copy()
        got = lcmulti.local_conv(x2, kernel2, implementation=name)
        np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-13, err_msg=kind)
        np.testing.assert_array_equal(x2, before[0], err_msg=kind)
        np.testing.assert_array_equal(kernel2, before[1], err_msg=kind)


@pytest.mark.parametrize("name", dict.fromkeys(param.values[0] for param in SERVED))
def test_results_share_no_memory_with_inputs(name):
    implementation = plugins.load_implementation("numpy", name)
    spec = LocalConvSpec((4, 2), 3, 1)
    (x, kernel, dy), _ = arrays_of(spec, 2, "float32")
    for result in maps(implementation, x, kernel, dy, spec, Resources(2**28)).values():
        assert result.flags.writeable
        assert not any(np.shares_memory(result, each) for each in (x, kernel, dy))


def test_big_endian_is_refused_or_right(rng):
    x, kernel = rng.normal(size=(2, 5, 3)), rng.normal(size=(4, 2, 3, 2))
    y = lcmulti.local_conv(x.astype(">f8"), kernel)
    np.testing.assert_allclose(y, lcmulti.local_conv(x, kernel))


def test_from_many_threads():
    """Eight threads with settings of their own get the right results, from old and new plans."""
    x, kernel = RNG.normal(size=(2, 12, 3)), RNG.normal(size=(11, 2, 3, 4))
    want = lcmulti.local_conv(x, kernel)
    wrong, start = [], threading.Barrier(8)

    def work(seed):
        start.wait(10)
        for i in range(30):
            with lcmulti.config(max_workspace=1000 + 37 * (seed * 30 + i)):
                y = lcmulti.local_conv(x, kernel)
            if not np.allclose(y, want, rtol=1e-13, atol=1e-13):
                wrong.append((seed, i))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == []
