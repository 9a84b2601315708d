"""A call as kernels receive it: a few integers for each axis, with leading axes merged."""

from __future__ import annotations

from math import gcd, prod
from typing import NamedTuple

from lcmulti.geometry.spec import LocalConvSpec

__all__ = ["MOST_AXES", "Axis", "axes_of", "folded"]

MOST_AXES = 4


class Axis(NamedTuple):
    """One spatial axis.

    Parameters
    ----------
    out, size, kernel, stride, dilation, low : int
        Number of positions, inputs and taps; step between windows and between taps; padding before
        the input.
    x, y, w : int
        Steps in memory, in elements, between inputs, between outputs and between the weights of
        positions. The last is 0 if the kernel is shared.
    """

    out: int
    size: int
    kernel: int
    stride: int
    dilation: int
    low: int
    x: int
    y: int
    w: int

    @property
    def is_pointwise(self) -> bool:
        """Whether each position reads only the input at its own place."""
        return self.kernel == 1 and self.stride == 1 and not self.low and self.out == self.size

    @property
    def is_whole(self) -> bool:
        """Whether one position reads the whole axis in order."""
        steps = self.dilation == 1 or self.kernel == 1
        return self.out == 1 and self.kernel == self.size and not self.low and steps

    @property
    def gcd(self) -> int:
        """The greatest common divisor of stride and dilation."""
        return gcd(self.stride, self.dilation)

    @property
    def inverse(self) -> int:
        """Inverse of the dilation modulo the stride, both divided by their `gcd`."""
        step = self.stride // self.gcd
        return pow(self.dilation // self.gcd, -1, step) if step > 1 else 0


def axes_of(
    spec: LocalConvSpec, x: tuple[int, ...] | None = None, y: tuple[int, ...] | None = None
) -> list[Axis]:
    """The axes of a call whose arrays have the strides *x* and *y*, or are channels last.

    Parameters
    ----------
    x, y : tuple of int, optional
        Strides along each spatial axis, in elements.
    """
    x = x or contiguous(spec.input_size, spec.in_channels)
    y = y or contiguous(spec.output_size, spec.filters)
    w = contiguous(spec.positions_shape, spec.terms * spec.filters)
    axes = []
    for axis in range(spec.ndim):
        out, size = spec.output_size[axis], spec.input_size[axis]
        # The stride of an axis of one element is never used, and may have any value.
        axes.append(
            Axis(
                out, size, spec.kernel_size[axis],
                spec.strides[axis] if out > 1 else 1,
                spec.dilation[axis] if spec.kernel_size[axis] > 1 else 1,
                spec.padding[axis][0],
                x[axis] if size > 1 else 0,
                y[axis] if out > 1 else 0,
                0 if axis in spec.shared_axes else w[axis],
            )
        )  # fmt: skip
    return folded(axes)


def contiguous(sizes: tuple[int, ...], unit: int) -> tuple[int, ...]:
    """Strides of a contiguous array ``(*sizes, unit)``."""
    return tuple(unit * prod(sizes[axis + 1 :]) for axis in range(len(sizes)))


def folded(axes: list[Axis]) -> list[Axis]:
    """Merge adjacent axes where windows and memory allow it."""
    found: list[Axis] = []
    for axis in axes:
        if not found:
            found.append(axis)
            continue
        one = _joined(found[-1], axis)
        if one is None:
            found.append(axis)
        else:
            found[-1] = one
    return found


def _joined(a: Axis, b: Axis) -> Axis | None:
    if _is_single(a):
        return b
    if _is_single(b):
        return a
    adjoin = a.x == b.x * b.size
    if a.is_whole and b.is_whole and adjoin:
        size = a.size * b.size
        return b._replace(size=size, kernel=size)
    same = bool(a.w) == bool(b.w) and a.y == b.y * b.out and a.w == b.w * b.out
    if a.is_pointwise and b.is_pointwise and adjoin and same:
        return b._replace(out=a.out * b.out, size=a.size * b.size)
    return None


def _is_single(axis: Axis) -> bool:
    return axis.out == 1 and axis.is_whole and axis.size == 1
