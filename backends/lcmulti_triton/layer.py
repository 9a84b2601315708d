"""`Layer` and `Tile`: one map of a call, and how it is divided into programs."""

from __future__ import annotations

from math import gcd, prod
from typing import NamedTuple

from lcmulti.dtypes import DTYPES
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Map
from lcmulti_triton.axes import MOST_AXES, Axis, axes_of

__all__ = ["Layer", "Tile", "layer_of", "refusal"]

LARGEST = 2**31 - 1
"""The largest index of 32 bits."""

SLACK = 2**12
"""More elements than the last tile of an axis reaches beyond its end."""


class Tile(NamedTuple):
    """How a map is divided into programs.

    Parameters
    ----------
    family : str
        ``"tiles"``; ``"thin"`` (few samples, no dot); ``"lanes"`` (few weights at a position);
        ``"windows"`` and ``"thin windows"`` (input gradient of windows that do not overlap).
    samples, terms, filters : int
        Sides of the tile, powers of two. *terms* are channels in the input's gradient, and
        positions with ``"lanes"``.
    warps, stages : int
        Warps of a program, and loads in flight in its loop.
    """

    family: str
    samples: int
    terms: int
    filters: int
    warps: int
    stages: int

    def __str__(self) -> str:
        return (
            f"{self.family} {self.samples}x{self.terms}x{self.filters}, "
            f"{self.warps} warp{'s' * (self.warps > 1)}, {self.stages} stages"
        )


class Layer(NamedTuple):
    """One map of a layer, with the strides of its arrays.

    Parameters
    ----------
    map : {"forward", "input_grad", "kernel_grad"}
    dtype : str
    batch : int
    axes : tuple of Axis
    channels, filters, groups : int
        Number of channels and filters of one group, and of groups.
    x_sample, x_channel, y_sample, y_filter : int
        Strides in elements.
    """

    map: Map
    dtype: str
    batch: int
    axes: tuple[Axis, ...]
    channels: int
    filters: int
    groups: int
    x_sample: int
    x_channel: int
    y_sample: int
    y_filter: int

    @property
    def taps(self) -> int:
        """Number of taps of a window."""
        return prod(axis.kernel for axis in self.axes)

    @property
    def terms(self) -> int:
        """Number of products in one output."""
        return self.taps * self.channels

    @property
    def outputs(self) -> int:
        """Number of output positions."""
        return prod(axis.out for axis in self.axes)

    @property
    def inputs(self) -> int:
        """Number of inputs of one channel."""
        return prod(axis.size for axis in self.axes)

    @property
    def own(self) -> int:
        """Number of positions with weights of their own."""
        return prod(axis.out for axis in self.axes if axis.w or axis.out == 1)

    @property
    def is_shared(self) -> bool:
        """Whether positions share their weights along any axis."""
        return any(axis.out > 1 and not axis.w for axis in self.axes)

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return DTYPES[self.dtype].itemsize

    @property
    def runs(self) -> bool:
        """Whether a window is contiguous in memory along the last axis."""
        last = self.axes[-1]
        together = self.groups == 1 and (self.x_channel == 1 or self.channels == 1)
        return together and last.x in (self.channels, 0) and last.dilation == 1

    @property
    def apart(self) -> bool:
        """Whether the inputs of one channel are adjacent in memory, instead of the channels."""
        return self.channels > 1 and self.x_channel > max(self.axes[-1].x, 1)

    @property
    def never_meets(self) -> bool:
        """Whether no two windows read the same input."""
        return all(a.out == 1 or (a.kernel - 1) * a.dilation < a.stride for a in self.axes)

    @property
    def covers(self) -> bool:
        """Whether windows that do not overlap cover the whole input."""
        return all(a.low == 0 and a.dilation == 1 and a.size == a.out * a.kernel for a in self.axes)

    @property
    def wide(self) -> bool:
        """Whether an offset in a sample, or one among the weights, needs 64 bits."""
        x = sum((max(a.size, a.out * a.stride) + a.kernel * a.dilation) * a.x for a in self.axes)
        y = sum((a.out - 1) * a.y for a in self.axes)
        x += self.channels * self.groups * self.x_channel
        y += self.filters * self.groups * self.y_filter
        w = self.own * self.terms * self.filters * self.groups
        padding = sum(a.low * a.x for a in self.axes)
        return max(x + padding, y, w) > LARGEST

    @property
    def x_unit(self) -> int:
        """A power of two that divides all strides of x, if channels are adjacent; else 0.

        The stride of channels, which is 1, is left out.
        """
        if self.x_channel != 1:
            return 0
        return _unit(self.channels * self.groups, (self.x_sample, *(a.x for a in self.axes)))

    @property
    def y_unit(self) -> int:
        """The same for y."""
        if self.y_filter != 1:
            return 0
        return _unit(self.filters * self.groups, (self.y_sample, *(a.y for a in self.axes)))


def _unit(channels: int, steps: tuple[int, ...]) -> int:
    """A divisor of all steps of any array with adjacent channels; 1 if this one has another."""
    unit = gcd(channels, 16)
    return 1 if any(step % unit for step in steps) else unit


def layer_of(
    map_: Map,
    spec: LocalConvSpec,
    dtype: str,
    batch: int,
    x: tuple[int, ...] | None = None,
    y: tuple[int, ...] | None = None,
) -> Layer:
    """The layer of a map of *spec* on arrays of these strides, or channels last.

    Parameters
    ----------
    x, y : tuple of int, optional
        Strides of ``(N, *size, channels)`` in elements.
    """
    channels, filters = spec.in_channels, spec.filters
    inputs, outputs = prod(spec.input_size), prod(spec.output_size)
    return Layer(
        map_, dtype, batch,
        tuple(axes_of(spec, x and x[1:-1], y and y[1:-1])),
        channels // spec.groups, filters // spec.groups, spec.groups,
        x[0] if x else inputs * channels, x[-1] if x and channels > 1 else 1,
        y[0] if y else outputs * filters, y[-1] if y and filters > 1 else 1,
    )  # fmt: skip


def refusal(spec: LocalConvSpec, batch: int) -> str | None:
    """Why kernels, which count in 32 bits, do not take a call, or None if they do."""
    if len(axes_of(spec)) > MOST_AXES:
        return "more than four axes that cannot be taken together"
    if spec.terms * spec.filters > LARGEST:
        return "the weights of one position need offsets of more than 32 bits"
    inputs, outputs = prod(spec.input_size), prod(spec.output_size)
    walked = batch * outputs // prod(spec.positions_shape)  # by a program of the kernel's gradient
    if max(batch, inputs, outputs, walked) > LARGEST - SLACK:
        return "more samples or positions than 32 bits can count"
    return None
