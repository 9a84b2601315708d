"""NumPy's door to the native kernels: memory layouts, overhead and the rounding of float16."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("lcmulti_native")

from helpers_native import (
    KERNEL,
    RESOURCES,
    RNG,
    SPEC,
    X,
    close,
    native,
)
from timing import least_seconds_a_call

import lcmulti
from lcmulti import plugins
from lcmulti.algorithms import reference

pytestmark = pytest.mark.sampled


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
    """Windows of `sliding_window_view` share elements; the kernels read them without a copy."""
    line = RNG.standard_normal((3, 40)).astype("float32")
    windows = np.lib.stride_tricks.sliding_window_view(line, filters, axis=1)
    kernel = RNG.standard_normal((windows.shape[1], 4, 1, filters)).astype("float32")
    call = dict(strides=4, data_format="channels_last")
    ours = lcmulti.local_conv_transpose(windows, kernel, implementation="native", **call)
    same = lcmulti.local_conv_transpose(windows.copy(), kernel, implementation="reference", **call)
    close(ours, same)


def test_numpy_overhead():
    """A warm call of almost no work takes under 10 microseconds, besides dispatch."""
    spec = lcmulti.LocalConvSpec((2, 1), 1, 1, data_format="channels_last").computed()
    door = plugins.load_implementation("numpy", "native")
    x, kernel = np.ones((1, 2, 1), "float32"), np.ones((2, 1, 1, 1), "float32")

    least = least_seconds_a_call(lambda: door.forward(x, kernel, spec, RESOURCES), 10e-6)
    assert least < 10e-6, f"{least * 1e6:.1f} microseconds"


@pytest.mark.parametrize("batch", [1, 16])
def test_float16_is_rounded_as_numpy_does(batch):
    """Sums of every float16 and another one are rounded to nearest, ties to even."""
    every = np.arange(2**16, dtype="uint16")
    pairs = np.stack([every, every * np.uint16(40503)], -1).view("float16")
    x = pairs.reshape(batch, -1, 2)
    spec = lcmulti.LocalConvSpec(x.shape[1:], 1, 1, data_format="channels_last").computed()
    door = plugins.load_implementation("numpy", "native")
    with np.errstate(all="ignore"):
        y = door.forward(x, np.ones(spec.kernel_shape, "float16"), spec, RESOURCES)
        expected = x.astype("float32").sum(-1, keepdims=True).astype("float16")
    np.testing.assert_array_equal(y, expected)
