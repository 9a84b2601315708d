"""NumPy's door: the addresses of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from lcmulti import LocalConvSpec
from lcmulti.backend import Resources
from lcmulti_native.library import MAPS, Native, Steps, compute, geometry

Array = np.ndarray[Any, Any]


class NumpyNative(Native):
    """`lcmulti.backend.Implementation` for arrays of NumPy, in any memory layout."""

    def forward(self, x: Array, kernel: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        """See `lcmulti.backend.Implementation.forward`."""
        x, step = _readable(x)
        y = np.empty((len(x), *spec.output_size, spec.filters), x.dtype)
        call = geometry(spec, len(x), x.dtype.name, resources.threads, step)
        return _run("forward", call, x, np.ascontiguousarray(kernel), y)

    def input_grad(
        self, dy: Array, kernel: Array, spec: LocalConvSpec, resources: Resources
    ) -> Array:
        """See `lcmulti.backend.Implementation.input_grad`."""
        dy, step = _readable(dy)
        dx = np.empty((len(dy), *spec.input_size, spec.in_channels), dy.dtype)
        call = geometry(spec, len(dy), dy.dtype.name, resources.threads, None, step)
        return _run("input_grad", call, dy, np.ascontiguousarray(kernel), dx)

    def kernel_grad(self, x: Array, dy: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        """See `lcmulti.backend.Implementation.kernel_grad`."""
        (x, x_step), (dy, dy_step) = _readable(x), _readable(dy)
        dkernel = np.empty(spec.kernel_shape, x.dtype)
        call = geometry(spec, len(x), x.dtype.name, resources.threads, x_step, dy_step)
        return _run("kernel_grad", call, x, dy, dkernel)


def _readable(array: Array) -> tuple[Array, Steps | None]:
    """An array the library can read, and its steps in elements unless it is contiguous."""
    flags = array.flags
    if flags.c_contiguous and flags.aligned:
        return array, None
    item, strides = array.itemsize, array.strides
    if not flags.aligned or any(stride % item for stride in strides):
        return np.ascontiguousarray(array), None
    steps = tuple(stride // item for stride in strides)
    return array, (steps[0], steps[-1], *steps[1:-1])


def _run(map_: str, call: Any, a: Array, b: Array, result: Array) -> Array:
    compute(call, MAPS[map_], _address(a), _address(b), _address(result))
    return result


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


implementation = NumpyNative()
