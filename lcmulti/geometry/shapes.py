"""Shape arithmetic of one spatial axis, in Python ints, which cannot overflow."""

from __future__ import annotations

__all__ = ["output_length", "window_extent"]


def window_extent(kernel: int, dilation: int) -> int:
    """Number of inputs from a window's first to its last: ``(kernel - 1) * dilation + 1``."""
    return (kernel - 1) * dilation + 1


def output_length(size: int, kernel: int, stride: int, low: int, high: int, dilation: int) -> int:
    """Number of windows that fit in the padded input; zero or less if none does."""
    return (size + low + high - window_extent(kernel, dilation)) // stride + 1
