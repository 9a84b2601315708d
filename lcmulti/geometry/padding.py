"""Padding is decided here: every way to write it becomes one ``(low, high)`` pair per axis."""

from __future__ import annotations

from typing import SupportsIndex

import numpy as np

from lcmulti.errors import ArgumentError, ArgumentTypeError, ShapeError
from lcmulti.geometry.arguments import integer, is_sequence, per_axis
from lcmulti.geometry.shapes import window_extent
from lcmulti.types import Padding

__all__ = [
    "NUMPY_MODES",
    "PADDING_MODES",
    "PADDINGS",
    "SIZE_KEEPING",
    "check_padding_mode",
    "explicit_padding",
    "padding_indices",
]

PADDINGS = ("valid", "same", "causal", "keras_same")
SIZE_KEEPING = ("same", "causal", "keras_same")
"""Paddings with ``ceil(size / stride)`` windows."""
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")

NUMPY_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
"""The names in `numpy.pad` of the modes other than zeros."""


def _named_padding(
    name: str, size: int, kernel: int, stride: int, dilation: int
) -> tuple[int, int]:
    extent = window_extent(kernel, dilation)
    if name == "valid":
        return 0, 0
    if name == "causal":
        return extent - 1, 0
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + extent - size, 0)
    if name == "same":  # TensorFlow and XLA: equal on both sides, an odd one at the end
        return total // 2, total - total // 2
    # keras_same, the mask of Keras 2's LocallyConnected: the window of output o starts at
    # o*stride - extent//2 and is clipped at both borders.
    low = extent // 2
    return low, max((outputs - 1) * stride + extent - low - size, 0)


def explicit_padding(
    padding: Padding,
    input_size: tuple[int, ...],
    kernel_size: tuple[int, ...],
    strides: tuple[int, ...],
    dilation: tuple[int, ...],
) -> tuple[tuple[int, int], ...]:
    """Return one ``(low, high)`` pair per spatial axis for *padding*, however it is written.

    Parameters
    ----------
    padding : str, int or sequence
        One of `PADDINGS` in any case, an int, one int per axis, or one pair per axis.
    input_size, kernel_size, strides, dilation : tuple of int
        One entry per spatial axis.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If *padding* is none of these.
    """
    axes = len(input_size)
    if isinstance(padding, str):
        name = padding.lower()
        if name not in PADDINGS:
            known = ", ".join(repr(each) for each in PADDINGS)
            raise ArgumentError("padding", f"one of {known}, an int, ints or pairs", padding)
        if name == "causal" and axes != 1:
            raise ArgumentError("padding", f"'causal' in 1D only, not in {axes}D", padding)
        rows = zip(input_size, kernel_size, strides, dilation, strict=True)
        return tuple(_named_padding(name, *row) for row in rows)
    if is_sequence(padding) and any(is_sequence(item) for item in padding):
        if len(padding) != axes or not all(is_sequence(p) and len(p) == 2 for p in padding):
            raise ArgumentError("padding", f"{axes} pairs (low, high)", padding)
        return tuple(
            (integer("padding", low, 0), integer("padding", high, 0)) for low, high in padding
        )
    if not is_sequence(padding) and not isinstance(padding, SupportsIndex):
        known = ", ".join(repr(each) for each in PADDINGS)
        raise ArgumentTypeError("padding", f"one of {known}, an int, ints or pairs", padding)
    return tuple((each, each) for each in per_axis("padding", padding, axes, minimum=0))


def check_padding_mode(
    mode: str, input_size: tuple[int, ...], padding: tuple[tuple[int, int], ...]
) -> None:
    """Raise, as PyTorch does, if the padding is longer than the input it is copied from."""
    if mode not in ("reflect", "circular"):
        return
    for size, pair in zip(input_size, padding, strict=True):
        limit = size - 1 if mode == "reflect" else size
        if max(pair) > limit:
            raise ShapeError(
                "padding", f"at most {limit} on an axis of {size} with {mode!r} padding", pair
            )


def padding_indices(size: int, low: int, high: int, mode: str) -> np.ndarray:
    """Indices into an axis of *size* that pad it by *low* and *high* in a non-zero *mode*."""
    return np.pad(np.arange(size), (low, high), mode=NUMPY_MODES[mode])  # type: ignore[call-overload,no-any-return]
