"""Inputs that neighbours hold: what each device needs of one spread axis, and how it comes.

Output positions are spread in runs of ``ceil(outputs / parts)``, so that the last devices may have
fewer, or none. Inputs are spread likewise, by their own number. A device needs the inputs that its
windows see. Most of them it holds; the rest travels from the devices that do, each element
once. Where its windows begin differs between devices, so positions come from tables by rank.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lcmulti.shapes import window_extent
from lcmulti.spec import LocalConvSpec

__all__ = ["Names", "Run", "Spread", "seen"]

Names = tuple[str, ...]
"""Axes of a mesh that one axis of an array is spread over."""


class Run(NamedTuple):
    """``start <= index < stop``."""

    start: int
    stop: int

    def __and__(self, other: Run) -> Run:  # type: ignore[override]
        return Run(max(self.start, other.start), min(self.stop, other.stop))

    def __len__(self) -> int:
        return max(self.stop - self.start, 0)


class Spread(NamedTuple):
    """One spatial axis of an operation, spread over *parts* devices.

    Parameters
    ----------
    inputs, outputs : int
        Length of the axis.
    stride, extent, low : int
        Step between windows, inputs from a window's first to its last, and zeros before the input.
    parts : int
    """

    inputs: int
    outputs: int
    stride: int
    extent: int
    low: int
    parts: int

    @classmethod
    def of(cls, spec: LocalConvSpec, axis: int, parts: int) -> Spread:
        """The spread of one spatial axis of *spec*."""
        return cls(
            spec.input_size[axis],
            spec.output_size[axis],
            spec.strides[axis],
            window_extent(spec.kernel_size[axis], spec.dilation[axis]),
            spec.padding[axis][0],
            parts,
        )

    @property
    def block(self) -> int:
        """Outputs of a device, the last ones' perhaps beyond the axis."""
        return -(-self.outputs // self.parts)

    @property
    def held(self) -> int:
        """Inputs of a device, the last ones' perhaps beyond the axis."""
        return -(-self.inputs // self.parts)

    @property
    def length(self) -> int:
        """Inputs, padding among them, that the windows of one device see."""
        return (self.block - 1) * self.stride + self.extent

    def owned(self, rank: int) -> Run:
        """Inputs that a device holds."""
        return Run(*(min(r * self.held, self.inputs) for r in (rank, rank + 1)))

    def computed(self, rank: int) -> Run:
        """Outputs that a device computes."""
        return Run(*(min(r * self.block, self.outputs) for r in (rank, rank + 1)))

    def first(self, rank: int) -> int:
        """The input at which the windows of a device begin, negative within the padding."""
        return rank * self.block * self.stride - self.low

    def needed(self, rank: int) -> Run:
        """Inputs that the windows of a device see."""
        outputs = self.computed(rank)
        if not len(outputs):
            return Run(0, 0)
        last = (outputs.stop - 1) * self.stride + self.extent - self.low
        return Run(self.first(rank), last) & Run(0, self.inputs)

    def travels(self) -> dict[int, list[Run]]:
        """How far inputs come from, and for each device the ones that come from there."""
        found: dict[int, list[Run]] = {}
        for rank in range(self.parts):
            needed = self.needed(rank)
            if not len(needed):
                continue
            for owner in range(needed.start // self.held, (needed.stop - 1) // self.held + 1):
                runs = found.setdefault(owner - rank, [Run(0, 0)] * self.parts)
                runs[rank] = needed & self.owned(owner)
        return found


def seen(x: jax.Array, axis: int, spread: Spread, names: Names, spread_already: bool) -> jax.Array:
    """The inputs that a device's windows see, zeros where they see padding.

    Parameters
    ----------
    x : array
        A device's part: `Spread.held` long along *axis*, or all of it if it is not
        *spread_already*, and then nothing travels.
    names : tuple of str
        Mesh axes it is spread over.

    Returns
    -------
    array
        `Spread.length` long along *axis*.
    """
    ranks = range(spread.parts)
    rank = lax.axis_index(names)

    def here(table: list[int]) -> jax.Array:
        return jnp.asarray(np.array(table, np.int32))[rank]

    def placed(part: jax.Array, starts: list[int], runs: list[Run], under: jax.Array) -> jax.Array:
        """*under* with the run of *part*, which begins at input ``starts[rank]``."""
        zero, length = jnp.zeros((), x.dtype), part.shape[axis]
        around = [(0, 0, 0)] * x.ndim
        around[axis] = (spread.length, spread.length, 0)
        offset = here([
            min(max(spread.first(r) - starts[r], -spread.length), length) + spread.length
            for r in ranks
        ])  # fmt: skip
        moved = lax.dynamic_slice_in_dim(lax.pad(part, zero, around), offset, spread.length, axis)
        places = lax.broadcasted_iota(np.int32, moved.shape, axis)
        low, high = (
            here(
                [min(max(getattr(runs[r], end) - spread.first(r), 0), spread.length) for r in ranks]
            )
            for end in ("start", "stop")
        )
        return jnp.where((low <= places) & (places < high), moved, under)

    shape = (*x.shape[:axis], spread.length, *x.shape[axis + 1 :])
    result = jnp.zeros(shape, x.dtype)
    if not spread_already:
        return placed(x, [0] * spread.parts, [spread.needed(r) for r in ranks], result)
    for distance, runs in sorted(spread.travels().items(), key=lambda each: abs(each[0])):
        if not distance:
            result = placed(x, [spread.owned(r).start for r in ranks], runs, result)
            continue
        # All messages of one distance are as long as the longest: one that starts too late to be
        # so long starts earlier.
        longest = max(map(len, runs))
        starts = [0] * spread.parts
        for r in ranks:
            if len(runs[r]):
                held = (r + distance) * spread.held
                starts[r] = min(runs[r].start, held + spread.held - longest)
        cut = here([
            starts[r - distance] - r * spread.held
            if r - distance in ranks and len(runs[r - distance])
            else 0
            for r in ranks
        ])  # fmt: skip
        message = lax.dynamic_slice_in_dim(x, cut, longest, axis)
        pairs = [(r + distance, r) for r in ranks if len(runs[r])]
        result = placed(_sent(message, names, pairs), starts, runs, result)
    return result


def _sent(message: jax.Array, names: Names, pairs: list[tuple[int, int]]) -> jax.Array:
    """`jax.lax.ppermute`; half types as they are, for XLA's CPU would send them as float32."""
    if message.dtype.itemsize != 2:
        return lax.ppermute(message, names, pairs)
    bits = lax.ppermute(lax.bitcast_convert_type(message, jnp.uint16), names, pairs)
    return lax.bitcast_convert_type(bits, message.dtype)
