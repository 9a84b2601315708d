"""The masks of Keras 2's implementations 2 and 3: which input each weight connects to.

In Keras 2, a layer is a matrix from inputs to outputs, in which an output is connected to the
inputs in its window only. Implementation 2 stores the whole matrix, with arbitrary values where
nothing is connected. Implementation 3 stores the connected entries only, sorted by (output,
input). At a border, where a window reaches into the padding, there are fewer of them.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import numpy as np

from lcmulti.errors import UnsupportedError
from lcmulti.geometry.spec import LocalConvSpec

__all__ = ["gather", "scatter", "stored_shape"]


def stored_shape(spec: LocalConvSpec, *, dense: bool) -> tuple[int, ...]:
    """Shape of the whole matrix if *dense*; else shape of the list of its connected entries."""
    _require_zeros(spec)
    if dense:
        return (*spec.input_shape, *spec.output_shape)
    connected = (int(_connected(spec, axis).sum()) for axis in range(spec.ndim))
    return (prod(connected) * spec.in_channels * spec.filters,)


def gather(stored: np.ndarray, spec: LocalConvSpec, *, dense: bool) -> np.ndarray:
    """The weights in *stored* as ``(*output_size, *kernel_size, in_channels, filters)``."""
    kernel = np.zeros(spec.kernel_shape, stored.dtype)
    if not dense:
        listed = kernel.transpose(_listed_axes(spec))  # a view: writing to it fills the kernel
        listed[_listed_mask(spec)] = stored
        return kernel
    matrix = stored.transpose(_matrix_axes(spec))
    for at_kernel, at_matrix in _entries(spec):
        kernel[at_kernel] = matrix[at_matrix]
    return kernel


def scatter(kernel: np.ndarray, spec: LocalConvSpec, *, dense: bool) -> np.ndarray:
    """The inverse of `gather`, with 0 where nothing is connected."""
    if not dense:
        listed: np.ndarray = kernel.transpose(_listed_axes(spec))[_listed_mask(spec)]
        return listed
    stored = np.zeros(stored_shape(spec, dense=True), kernel.dtype)
    matrix = stored.transpose(_matrix_axes(spec))
    for at_kernel, at_matrix in _entries(spec):
        matrix[at_matrix] = kernel[at_kernel]
    return stored


def _require_zeros(spec: LocalConvSpec) -> None:
    if spec.padding_mode != "zeros":
        raise UnsupportedError(f"Keras 2 pads with zeros, the spec with {spec.padding_mode!r}")


def _seen(spec: LocalConvSpec, axis: int) -> np.ndarray:
    """Index along *axis* of the input of each output and tap; it may lie in the padding."""
    starts = np.arange(spec.output_size[axis]) * spec.strides[axis] - spec.padding[axis][0]
    taps = np.arange(spec.kernel_size[axis]) * spec.dilation[axis]
    seen: np.ndarray = starts[:, None] + taps
    return seen


def _connected(spec: LocalConvSpec, axis: int) -> np.ndarray:
    """``(output, tap)``: whether the tap reads the input, not the padding."""
    seen = _seen(spec, axis)
    return (seen >= 0) & (seen < spec.input_size[axis])


def _listed_axes(spec: LocalConvSpec) -> tuple[int, ...]:
    """The order of implementation 3: by output, then by input, both in the layer's data format."""
    n = spec.ndim
    positions, taps = tuple(range(n)), tuple(range(n, 2 * n))
    channels, filters = 2 * n, 2 * n + 1
    if spec.data_format == "channels_last":
        return (*positions, filters, *taps, channels)
    return (filters, *positions, channels, *taps)


def _listed_mask(spec: LocalConvSpec) -> np.ndarray:
    n = spec.ndim
    mask = np.ones((1,) * (2 * n + 2), bool)
    for axis in range(n):
        shape = [1] * (2 * n + 2)
        shape[axis], shape[n + axis] = spec.output_size[axis], spec.kernel_size[axis]
        mask = mask & _connected(spec, axis).reshape(shape)
    return np.broadcast_to(mask, spec.kernel_shape).transpose(_listed_axes(spec))


def _matrix_axes(spec: LocalConvSpec) -> tuple[int, ...]:
    """Permutation of the matrix to ``(*input_size, *output_size, channels, filters)``."""
    n = spec.ndim
    if spec.data_format == "channels_last":
        return (*range(n), *range(n + 1, 2 * n + 1), n, 2 * n + 1)
    return (*range(1, n + 1), *range(n + 2, 2 * n + 2), 0, n + 1)


def _entries(spec: LocalConvSpec) -> Any:
    """For each tap, where its weights are in the kernel and in the matrix."""
    n = spec.ndim
    for tap in product(*map(range, spec.kernel_size)):
        outputs = [np.flatnonzero(_connected(spec, axis)[:, tap[axis]]) for axis in range(n)]
        inputs = [_seen(spec, axis)[outputs[axis], tap[axis]] for axis in range(n)]
        open_outputs, open_inputs = np.ix_(*outputs), np.ix_(*inputs)
        yield (*open_outputs, *tap), (*open_inputs, *open_outputs)
