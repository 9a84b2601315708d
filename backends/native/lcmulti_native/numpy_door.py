"""The door for NumPy: it passes the addresses of arrays."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from lcmulti import LocalConvSpec
from lcmulti.dtypes import name_of
from lcmulti.operations.neighbours import Link
from lcmulti.plugins.contract import Map, Problem, Resources
from lcmulti_native.cosines import SUMS, Cosines, compute_cosines, cosine_call
from lcmulti_native.library import (
    MAPS,
    Native,
    Steps,
    compute,
    geometry,
    require_operands,
)

Array = np.ndarray[Any, Any]
LINE = 64
# From this many bytes on, the library writes results past the caches, whole lines at a time.
STREAMED = 16 << 20
# A single position is a single task here. From this many flops on, a matrix product is faster.
ONE_PRODUCT = 5_000_000


class NumpyNative(Cosines, Native):
    """`lcmulti.backend.Implementation` for NumPy arrays in any memory layout."""

    def decline(self, problem: Problem) -> str | None:
        """Leaves a single large matrix product to NumPy, which uses all threads for it."""
        spec = problem.spec
        if prod(spec.output_size) == 1 and spec.flops(problem.samples) > ONE_PRODUCT:
            return "a single position is a matrix product"
        return super().decline(problem)

    def forward(self, x: Array, kernel: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        """See `lcmulti.backend.Implementation.forward`."""
        require_operands("forward", x, kernel, spec)
        x, step = _readable(x)
        y = empty((len(x), *spec.output_size, spec.filters), x.dtype)
        call = geometry(spec, len(x), name_of(x.dtype), resources.threads, step)
        return _run("forward", call, x, np.ascontiguousarray(kernel), y)

    def input_grad(
        self, dy: Array, kernel: Array, spec: LocalConvSpec, resources: Resources
    ) -> Array:
        """See `lcmulti.backend.Implementation.input_grad`."""
        require_operands("input_grad", dy, kernel, spec)
        dy, step = _readable(dy)
        dx = empty((len(dy), *spec.input_size, spec.in_channels), dy.dtype)
        call = geometry(spec, len(dy), name_of(dy.dtype), resources.threads, None, step)
        return _run("input_grad", call, dy, np.ascontiguousarray(kernel), dx)

    def kernel_grad(self, x: Array, dy: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        """See `lcmulti.backend.Implementation.kernel_grad`."""
        require_operands("kernel_grad", x, dy, spec)
        (x, x_step), (dy, dy_step) = _readable(x), _readable(dy)
        dkernel = empty(spec.kernel_shape, x.dtype)
        call = geometry(spec, len(x), name_of(x.dtype), resources.threads, x_step, dy_step)
        return _run("kernel_grad", call, x, dy, dkernel)

    def run_cosines(
        self, map_: int, a: Array, b: Array, links: tuple[Link, ...], resources: Resources
    ) -> Array:
        """See `lcmulti_native.cosines.Cosines.run_cosines`."""
        a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
        result = empty((4, *b.shape) if map_ == SUMS else a.shape, a.dtype)
        call = cosine_call(map_, a.shape, name_of(a.dtype), resources.threads, links)
        compute_cosines(call, _address(a), _address(b), _address(result))
        return result


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A new array for a result. A large one is aligned to cache lines, unlike NumPy's own."""
    size = prod(shape) * dtype.itemsize
    if size <= STREAMED:
        return np.empty(shape, dtype)
    room = np.empty(size + LINE, np.uint8)
    start = -_address(room) % LINE
    return room[start : start + size].view(dtype).reshape(shape)


def _readable(array: Array) -> tuple[Array, Steps | None]:
    """An array that the library can read, and its strides in elements unless it is contiguous."""
    flags = array.flags
    if flags.c_contiguous and flags.aligned:
        return array, None
    item, strides = array.itemsize, array.strides
    if not flags.aligned or any(stride % item for stride in strides):
        return np.ascontiguousarray(array), None
    steps = tuple(stride // item for stride in strides)
    return array, (steps[0], steps[-1], *steps[1:-1])


def _run(map_: Map, call: Any, a: Array, b: Array, result: Array) -> Array:
    compute(call, MAPS[map_], _address(a), _address(b), _address(result))
    return result


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


implementation = NumpyNative()
