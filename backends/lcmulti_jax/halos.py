"""Halos: the inputs of other devices that each device needs along one divided axis.

`lcmulti.geometry.sharding` tells which rows these are. All devices run the same program. So
whatever differs between them comes from tables indexed by rank, and messages over the same distance
have the same length.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lcmulti.geometry.shapes import window_extent
from lcmulti.geometry.sharding import AxisPart, axis_parts
from lcmulti.geometry.spec import LocalConvSpec

__all__ = ["Cut", "Names", "seen"]

Names = tuple[str, ...]
"""Axes of a mesh that divide one axis of an array."""


class Cut(NamedTuple):
    """One spatial axis of an operation, divided among the devices along *names*.

    All devices have the same number of rows; those of the last ones may reach beyond the axis.
    """

    spec: LocalConvSpec
    axis: int
    names: Names
    devices: int

    @property
    def parts(self) -> tuple[AxisPart, ...]:
        """The rows that each device owns, needs and sends."""
        return axis_parts(self.spec, self.axis, self.devices)

    @property
    def outputs(self) -> int:
        """Number of output positions of a device."""
        return -(-self.spec.output_size[self.axis] // self.devices)

    @property
    def inputs(self) -> int:
        """Number of input rows of a device."""
        return -(-self.spec.input_size[self.axis] // self.devices)

    @property
    def extent(self) -> int:
        """Number of rows from a window's first to its last."""
        spec = self.spec
        return window_extent(spec.kernel_size[self.axis], spec.dilation[self.axis])

    @property
    def window(self) -> int:
        """Number of rows, including padding, that the windows of one device read."""
        return (self.outputs - 1) * self.spec.strides[self.axis] + self.extent


class _Run(NamedTuple):
    """Rows that are contiguous at their owner, and the place where the first of them goes."""

    rows: range
    place: int


_NOTHING = _Run(range(0), 0)


def seen(x: jax.Array, cut: Cut, whole: bool) -> jax.Array:
    """The input that a device's windows read, with its padding.

    Parameters
    ----------
    x : array
        ``(N, *input_size, channels)``. Its length along the divided axis is `Cut.inputs`, or that
        of the whole axis if every device has it *whole*. Then nothing travels.

    Returns
    -------
    array
        The window; its length along this axis is `Cut.window`.
    """
    device = _Device(cut)
    zeros = cut.spec.padding_mode == "zeros"
    length = cut.window if zeros else max(part.needed for part in cut.parts)
    needed = device.empty(x, length)
    for distance, runs in _travels(cut.parts, whole, zeros):
        if whole:
            needed = device.put(x, [0] * cut.devices, runs, needed)
        elif not distance:
            needed = device.put(x, device.starts, runs, needed)
        else:
            needed = device.put(*device.fetch(x, distance, runs), runs, needed)
    return needed if zeros else device.surrounded(needed)


def _travels(
    parts: Iterable[AxisPart], whole: bool, zeros: bool
) -> Iterable[tuple[int, list[_Run]]]:
    """The distances that rows travel, the smallest first, and the rows of each device for each."""
    found: dict[tuple[int, int], list[_Run]] = {}
    parts = tuple(parts)
    for part in parts:
        place = part.padding[0] if zeros else 0
        pieces = [(rows, None) for rows in part.needs] if whole else [*part.pieces]
        met: list[int] = []
        for rows, owner in pieces:
            distance = 0 if owner is None else owner - part.part
            runs = found.setdefault((distance, met.count(distance)), [_NOTHING] * len(parts))
            runs[part.part] = _Run(rows, place)
            met.append(distance)
            place += len(rows)
    return [(key[0], found[key]) for key in sorted(found, key=lambda key: (abs(key[0]), key))]


class _Device:
    """Array operations on one device's part, along the divided axis."""

    def __init__(self, cut: Cut) -> None:
        self.cut = cut
        self.axis = cut.axis + 1
        self.rank = lax.axis_index(cut.names)
        self.starts = [rank * cut.inputs for rank in range(cut.devices)]

    def here(self, table: Iterable[int | list[int]]) -> jax.Array:
        """The entry of this device in a table indexed by rank."""
        return jnp.asarray(np.array([*table], np.int32))[self.rank]

    def empty(self, x: jax.Array, length: int) -> jax.Array:
        """Zeros."""
        return jnp.zeros((*x.shape[: self.axis], length, *x.shape[self.axis + 1 :]), x.dtype)

    def put(
        self, array: jax.Array, starts: list[int], runs: list[_Run], under: jax.Array
    ) -> jax.Array:
        """*under* with the rows of a run written into it; *array* begins at ``starts[rank]``."""
        length = under.shape[self.axis]
        around = [(0, 0, 0)] * array.ndim
        around[self.axis] = (length, length, 0)
        padded = lax.pad(array, jnp.zeros((), array.dtype), around)
        offsets = (
            run.rows.start - start - run.place + length if run.rows else 0
            for run, start in zip(runs, starts, strict=True)
        )
        moved = lax.dynamic_slice_in_dim(padded, self.here(offsets), length, self.axis)
        places = lax.broadcasted_iota(np.int32, moved.shape, self.axis)
        low = self.here(run.place for run in runs)
        high = self.here(run.place + len(run.rows) for run in runs)
        return jnp.where((low <= places) & (places < high), moved, under)

    def fetch(self, x: jax.Array, distance: int, runs: list[_Run]) -> tuple[jax.Array, list[int]]:
        """Rows of the device *distance* further on, and the number of the first one.

        All messages have the length of the longest. If rows start too late for that, the message
        starts earlier.
        """
        held, longest = self.cut.inputs, max(len(run.rows) for run in runs)
        starts, cuts = [0] * len(runs), [0] * len(runs)
        pairs = []
        for rank, run in enumerate(runs):
            if run.rows:
                owner = rank + distance
                starts[rank] = min(run.rows.start, (owner + 1) * held - longest)
                cuts[owner] = starts[rank] - owner * held
                pairs.append((owner, rank))
        message = lax.dynamic_slice_in_dim(x, self.here(cuts), longest, self.axis)
        return _sent(message, self.cut.names, pairs), starts

    def surrounded(self, needed: jax.Array) -> jax.Array:
        """The rows that a device needs, with copies of some of them as padding."""
        parts, window = self.cut.parts, self.empty(needed, self.cut.window)
        nothing = [0] * len(parts)
        inner = [_Run(part.inner, len(part.before)) for part in parts]
        window = self.put(needed, nothing, inner, window)
        for copies, places in (
            ([part.before for part in parts], nothing),
            ([part.after for part in parts], [len(p.before) + len(p.inner) for p in parts]),
        ):
            most = max(map(len, copies))
            if most:
                table = self.here([*each, *[0] * (most - len(each))] for each in copies)
                runs = [_Run(range(len(c)), p) for c, p in zip(copies, places, strict=True)]
                copied = jnp.take(needed, table, self.axis, mode="clip")
                window = self.put(copied, nothing, runs, window)
        return window


def _sent(message: jax.Array, names: Names, pairs: list[tuple[int, int]]) -> jax.Array:
    """`jax.lax.ppermute`. Half types are sent as integers: XLA on CPUs would send float32."""
    if message.dtype.itemsize != 2:
        return lax.ppermute(message, names, pairs)
    bits = lax.ppermute(lax.bitcast_convert_type(message, jnp.uint16), names, pairs)
    return lax.bitcast_convert_type(bits, message.dtype)
