"""An independent oracle: plain loops over every index, in extended precision.

It shares no code with `lcmulti.reference` or with the shape arithmetic of the package. It reads
only the explicit fields of a spec (sizes, strides, padding pairs, ...) and nothing derived from
them. All four results use one enumeration of the products, `products`, so that the formula of the
index is written in one place.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np

from lcmulti.geometry.spec import LocalConvSpec

__all__ = [
    "bias_grad",
    "forward",
    "input_grad",
    "kernel_grad",
    "products",
    "results",
    "roundoff",
    "source",
]

Index = tuple[int, ...]


class Term(NamedTuple):
    """One product: its indices in ``y`` and ``x`` (without the batch) and in ``kernel``."""

    y: Index
    x: Index
    kernel: Index


def roundoff() -> float:
    """Unit roundoff of the oracle: 2**-64 in extended precision, else that of float64."""
    return float(np.finfo(np.longdouble).eps) / 2


def products(spec: LocalConvSpec) -> Iterator[Term]:
    """Every product ``x[..] * kernel[..]`` of one sample, without products of padding.

    Indices of ``y`` and ``x`` are in the order of *spec.data_format*, without the batch.
    """
    filters, channels = spec.filters // spec.groups, spec.in_channels // spec.groups
    for o in product(*(range(n) for n in spec.output_size)):
        weights = tuple(0 if a in spec.shared_axes else o[a] for a in range(len(o)))
        for t in product(*(range(k) for k in spec.kernel_size)):
            i = tuple(source(spec, axis, o[axis], t[axis]) for axis in range(len(o)))
            if -1 in i:
                continue
            for f in range(spec.filters):
                for c in range(channels):
                    seen = (f // filters) * channels + c
                    yield Term(_at(spec, o, f), _at(spec, i, seen), (*weights, *t, c, f))


def source(spec: LocalConvSpec, axis: int, o: int, t: int) -> int:
    """The input index that tap *t* of output *o* reads, or -1 for padding."""
    size = spec.input_size[axis]
    i = o * spec.strides[axis] + t * spec.dilation[axis] - spec.padding[axis][0]
    if 0 <= i < size:
        return i
    if spec.padding_mode == "replicate":
        return 0 if i < 0 else size - 1
    if spec.padding_mode == "reflect":
        return -i if i < 0 else 2 * (size - 1) - i
    if spec.padding_mode == "circular":
        return i + size if i < 0 else i - size
    return -1


def _at(spec: LocalConvSpec, position: Index, channel: int) -> Index:
    if spec.data_format == "channels_first":
        return (channel, *position)
    return (*position, channel)


def forward(
    x: np.ndarray, kernel: np.ndarray, bias: np.ndarray | None, spec: LocalConvSpec
) -> np.ndarray:
    """``y``: ``(N, *spec.output_shape)``, for arrays in the caller's layout."""
    x, kernel = _extended(x), _extended(kernel)
    y = np.zeros((len(x), *spec.output_shape), x.dtype)
    for n in range(len(x)):
        for term in products(spec):
            y[(n, *term.y)] += x[(n, *term.x)] * kernel[term.kernel]
        if bias is not None:
            for o, f in _outputs(spec):
                y[(n, *_at(spec, o, f))] += _extended(bias)[_shared(bias.shape, o, f)]
    return y


def input_grad(dy: np.ndarray, kernel: np.ndarray, spec: LocalConvSpec) -> np.ndarray:
    """``dx``: ``(N, *spec.input_shape)``."""
    dy, kernel = _extended(dy), _extended(kernel)
    dx = np.zeros((len(dy), *spec.input_shape), dy.dtype)
    for n in range(len(dy)):
        for term in products(spec):
            dx[(n, *term.x)] += dy[(n, *term.y)] * kernel[term.kernel]
    return dx


def kernel_grad(x: np.ndarray, dy: np.ndarray, spec: LocalConvSpec) -> np.ndarray:
    """``dkernel``: ``spec.kernel_shape``."""
    x, dy = _extended(x), _extended(dy)
    dkernel = np.zeros(spec.kernel_shape, x.dtype)
    for n in range(len(x)):
        for term in products(spec):
            dkernel[term.kernel] += x[(n, *term.x)] * dy[(n, *term.y)]
    return dkernel


def bias_grad(dy: np.ndarray, bias_shape: tuple[int, ...], spec: LocalConvSpec) -> np.ndarray:
    """``dbias``: *bias_shape*."""
    dy = _extended(dy)
    dbias = np.zeros(bias_shape, dy.dtype)
    for n in range(len(dy)):
        for o, f in _outputs(spec):
            dbias[_shared(bias_shape, o, f)] += dy[(n, *_at(spec, o, f))]
    return dbias


def results(
    x: np.ndarray, kernel: np.ndarray, bias: np.ndarray | None, dy: np.ndarray, spec: LocalConvSpec
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Value and gradients, in the order of `lcmulti.conformance.calls.Results`."""
    return (
        forward(x, kernel, bias, spec),
        input_grad(dy, kernel, spec),
        kernel_grad(x, dy, spec),
        None if bias is None else bias_grad(dy, bias.shape, spec),
    )


def _outputs(spec: LocalConvSpec) -> Iterator[tuple[Index, int]]:
    return product(product(*map(range, spec.output_size)), range(spec.filters))


def _shared(bias_shape: tuple[int, ...], position: Index, channel: int) -> Index:
    own = (0 if n == 1 else o for n, o in zip(bias_shape[:-1], position, strict=True))
    return (*own, channel)


def _extended(array: np.ndarray) -> np.ndarray:
    kind = np.clongdouble if np.iscomplexobj(array) else np.longdouble
    return array.astype(kind)
