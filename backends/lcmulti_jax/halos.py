"""Inputs that other devices hold: what each needs along one split axis, and how it comes.

`lcmulti.geometry.sharding` tells which rows those are. All devices run one program, so what
differs between them comes from tables by rank, and messages that travel equally far are equally
long.
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
"""Axes of a mesh that one axis of an array is split over."""


class Cut(NamedTuple):
    """One spatial axis of an operation, in as many parts as there are devices along *names*.

    Every device has as many rows as the first; the last ones' may reach beyond the axis.
    """

    spec: LocalConvSpec
    axis: int
    names: Names
    count: int

    @property
    def parts(self) -> tuple[AxisPart, ...]:
        """What each device owns, needs and sends."""
        return axis_parts(self.spec, self.axis, self.count)

    @property
    def outputs(self) -> int:
        """Output positions of a device."""
        return -(-self.spec.output_size[self.axis] // self.count)

    @property
    def inputs(self) -> int:
        """Input rows of a device."""
        return -(-self.spec.input_size[self.axis] // self.count)

    @property
    def extent(self) -> int:
        """Rows from a window's first to its last."""
        spec = self.spec
        return window_extent(spec.kernel_size[self.axis], spec.dilation[self.axis])

    @property
    def window(self) -> int:
        """Rows, padding among them, that the windows of one device see."""
        return (self.outputs - 1) * self.spec.strides[self.axis] + self.extent


class _Run(NamedTuple):
    """Rows that lie one after the other at their owner, and where the first of them goes."""

    rows: range
    place: int


_NOTHING = _Run(range(0), 0)


def seen(x: jax.Array, cut: Cut, whole: bool) -> jax.Array:
    """The input that a device's windows see, with its padding.

    Parameters
    ----------
    x : array
        ``(N, *input_size, channels)``, along the axis that is cut `Cut.inputs` long, or as long as
        the axis if it is there *whole*. Then nothing travels.

    Returns
    -------
    array
        Along that axis `Cut.window` long.
    """
    device = _Device(cut)
    zeros = cut.spec.padding_mode == "zeros"
    length = cut.window if zeros else max(part.needed for part in cut.parts)
    needed = device.empty(x, length)
    for distance, runs in _travels(cut.parts, whole, zeros):
        if whole:
            needed = device.put(x, [0] * cut.count, runs, needed)
        elif not distance:
            needed = device.put(x, device.starts, runs, needed)
        else:
            needed = device.put(*device.fetch(x, distance, runs), runs, needed)
    return needed if zeros else device.surrounded(needed)


def _travels(
    parts: Iterable[AxisPart], whole: bool, zeros: bool
) -> Iterable[tuple[int, list[_Run]]]:
    """How far rows come from, nearest first, and for each device those that come from there."""
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
    """Array operations on one device's part, along the axis that is cut."""

    def __init__(self, cut: Cut) -> None:
        self.cut = cut
        self.axis = cut.axis + 1
        self.rank = lax.axis_index(cut.names)
        self.starts = [rank * cut.inputs for rank in range(cut.count)]

    def here(self, table: Iterable[int | list[int]]) -> jax.Array:
        """The entry that is this device's, of a table by rank."""
        return jnp.asarray(np.array([*table], np.int32))[self.rank]

    def empty(self, x: jax.Array, length: int) -> jax.Array:
        """Zeros."""
        return jnp.zeros((*x.shape[: self.axis], length, *x.shape[self.axis + 1 :]), x.dtype)

    def put(
        self, array: jax.Array, starts: list[int], runs: list[_Run], under: jax.Array
    ) -> jax.Array:
        """*under* with the rows of a run, of an *array* that begins at row ``starts[rank]``."""
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
        """Rows of the device *distance* further on, and which is the first.

        Messages are as long as the longest: what starts too late for that is sent from earlier on.
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
        """The rows a device needs, with copies of some of them for padding."""
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
    """`jax.lax.ppermute`; half types as they are, for XLA's CPU would send them as float32."""
    if message.dtype.itemsize != 2:
        return lax.ppermute(message, names, pairs)
    bits = lax.ppermute(lax.bitcast_convert_type(message, jnp.uint16), names, pairs)
    return lax.bitcast_convert_type(bits, message.dtype)
