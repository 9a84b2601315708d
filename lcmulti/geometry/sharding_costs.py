"""What a layer over ranks takes, on paper: memory, messages and time of the largest rank.

Sizes and bytes are counted, as the layers over processes hold and send them. Times are estimates,
from the speeds that are given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import NamedTuple

from lcmulti.dtypes import DTYPES
from lcmulti.errors import ArgumentError
from lcmulti.geometry.arguments import choice, integer
from lcmulti.geometry.fields import SpecFields
from lcmulti.geometry.sharding import AxisPart, axis_parts, turn

__all__ = ["RankCosts", "Sharding", "Speeds", "best_parts", "costs", "sent", "splits"]

STATES = 2
"""Numbers that an optimiser keeps of each weight; Adam's are two."""


class Speeds(NamedTuple):
    """What a rank can do in a second.

    Parameters
    ----------
    flops : float
        Multiplications and additions.
    memory, network : float
        Bytes from its memory, and to other ranks.
    latency : float
        Seconds that a message takes whatever its size.
    """

    flops: float = 1e12
    memory: float = 2e11
    network: float = 1.25e10
    latency: float = 1e-5


class RankCosts(NamedTuple):
    """What the largest rank takes; each figure is that of the rank where it is largest.

    Parameters
    ----------
    positions : int
        Output positions.
    empty : int
        Ranks that have none.
    weights, gradients, optimizer : int
        Bytes.
    inputs, outputs : int
        Bytes of what it owns of them.
    halo, messages : int
        Bytes and messages that it sends in a forward pass. A backward pass sends as much back,
        of half types twice the bytes.
    flops : int
        Of a forward pass.
    """

    positions: int
    empty: int
    weights: int
    gradients: int
    optimizer: int
    inputs: int
    outputs: int
    halo: int
    messages: int
    flops: int

    @property
    def memory(self) -> int:
        """Bytes of all of it in training, without the workspace."""
        return sum((self.weights, self.gradients, self.optimizer, self.inputs, self.outputs))

    def compute_time(self, speeds: Speeds) -> float:
        """Seconds of a forward pass: its products, or its memory once through."""
        moved = self.weights + self.inputs + self.outputs
        return max(self.flops / speeds.flops, moved / speeds.memory)

    def halo_time(self, speeds: Speeds) -> float:
        """Seconds that a forward pass' messages take."""
        return self.messages * speeds.latency + self.halo / speeds.network


@dataclass(frozen=True)
class Sharding:
    """A layer over ranks: its axes, each cut into so many parts.

    Parameters
    ----------
    spec : LocalConvSpec
    parts : tuple of int
        One entry per spatial axis. Ranks count through them as an array does, the last fastest.

    Examples
    --------
    >>> spec = LocalConvSpec((10, 8, 3), filters=4, kernel_size=3, data_format="channels_last")
    >>> sharding = Sharding(spec, (4, 1))
    >>> [part.outputs for part in sharding.axes[0]]
    [range(0, 2), range(2, 4), range(4, 6), range(6, 8)]
    >>> sharding.axes[0][2].receives
    (Piece(part=1, rows=range(4, 6)),)
    """

    spec: SpecFields
    parts: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.parts) != self.spec.ndim:
            expected = f"{self.spec.ndim} numbers of parts, one per spatial axis"
            raise ArgumentError("parts", expected, self.parts)
        object.__setattr__(self, "parts", tuple(integer("parts", n, 1) for n in self.parts))

    @property
    def ranks(self) -> int:
        """Number of ranks."""
        return prod(self.parts)

    @cached_property
    def axes(self) -> tuple[tuple[AxisPart, ...], ...]:
        """The parts of each axis."""
        return tuple(axis_parts(self.spec, axis, n) for axis, n in enumerate(self.parts))

    def costs(self, batch: int = 1, dtype: str = "float32") -> RankCosts:
        """What the largest rank takes; see `lcmulti.geometry.sharding_costs.costs`."""
        return costs(self, batch, dtype)

    def __iter__(self) -> Iterator[tuple[AxisPart, ...]]:
        """For each rank, its part of each axis."""
        return product(*self.axes)

    def __getitem__(self, rank: int) -> tuple[AxisPart, ...]:
        place = []
        for parts in reversed(self.parts):
            rank, at = divmod(rank, parts)
            place.append(at)
        if rank:
            raise IndexError(f"there are {self.ranks} ranks")
        return tuple(parts[at] for parts, at in zip(self.axes, reversed(place), strict=True))


def costs(
    sharding: Sharding, batch: int = 1, dtype: str = "float32", states: int = STATES
) -> RankCosts:
    """What each of the ranks takes at most.

    Parameters
    ----------
    sharding : Sharding
    batch : int, default 1
        Samples, on every rank.
    dtype : str, default "float32"
    states : int, default 2
        Numbers that the optimiser keeps of each weight, in the accumulator of *dtype*.

    Raises
    ------
    ArgumentError
        For a batch or a dtype that cannot be.
    """
    batch, dtype = integer("batch", batch, 0), choice("dtype", dtype, DTYPES)
    spec, item = sharding.spec, DTYPES[dtype].itemsize
    shares = [prod(len(part.outputs) for part in parts) for parts in _unlike(sharding)]
    positions = max(shares)
    weights = max(_weights(spec, parts) for parts in _unlike(sharding))
    inputs = max(prod(len(part.inputs) for part in parts) for parts in _unlike(sharding))
    traffic = [sent(parts) for parts in _unlike(sharding)]
    filled = prod(sum(1 for part in parts if part.outputs) for parts in sharding.axes)
    wide = DTYPES[DTYPES[dtype].accumulator].itemsize
    return RankCosts(
        positions,
        sharding.ranks - filled,
        weights * item,
        weights * item,
        states * weights * wide,
        batch * inputs * spec.in_channels * item,
        batch * positions * spec.filters * item,
        batch * max(rows for rows, _ in traffic) * spec.in_channels * item,
        max(messages for _, messages in traffic),
        2 * batch * positions * spec.filters * spec.terms,
    )


def sent(parts: tuple[AxisPart, ...]) -> tuple[int, int]:
    """Input positions that a rank sends in a forward pass, a sample, and messages.

    Axis by axis in the order of `turn`, each with what the ones before have brought.
    """
    size = [len(part.inputs) for part in parts]
    total = messages = 0
    for axis, part in sorted(enumerate(parts), key=_turn):
        other = prod(size[:axis] + size[axis + 1 :])
        if other:
            total += other * sum(len(piece.rows) for piece in part.sends)
            messages += len({piece.part for piece in part.sends})
        size[axis] = part.window
    return total, messages


def _turn(axis: tuple[int, AxisPart]) -> int:
    part = axis[1]
    return turn(part.travels, len(part.inputs), part.window)


def _weights(spec: SpecFields, parts: tuple[AxisPart, ...]) -> int:
    """Elements of a rank's kernel and bias."""
    own = prod(
        1 if axis in spec.shared_axes else len(part.outputs) for axis, part in enumerate(parts)
    )
    return own * (spec.terms * spec.filters + spec.filters)


def _unlike(sharding: Sharding) -> Iterator[tuple[AxisPart, ...]]:
    """One of the ranks of each kind: most are alike."""
    kinds = []
    for parts in sharding.axes:
        found = {}
        for part in parts:
            rows = tuple(len(piece.rows) for piece in part.sends)
            kind = (len(part.outputs), len(part.inputs), part.window, bool(part.receives), rows)
            found[kind] = part
        kinds.append(found.values())
    return product(*kinds)


def splits(spec: SpecFields, ranks: int) -> Iterator[tuple[int, ...]]:
    """Every way to divide so many ranks among the spatial axes."""

    def divided(count: int, axes: int) -> Iterator[tuple[int, ...]]:
        if axes == 1:
            yield (count,)
            return
        for parts in range(1, count + 1):
            if count % parts == 0:
                for rest in divided(count // parts, axes - 1):
                    yield (parts, *rest)

    return divided(integer("ranks", ranks, 1), spec.ndim)


def best_parts(spec: SpecFields, ranks: int) -> tuple[int, ...]:
    """The split whose largest rank has the fewest weights; of those the smallest halo.

    Of those that remain, the one with the fewest messages, and then the one that cuts the axes
    that come first, along which parts are one piece of memory.
    """

    def rated(parts: tuple[int, ...]) -> tuple[int, ...]:
        found = costs(Sharding(spec, parts))
        return found.weights, found.positions, found.halo, found.messages, *(-n for n in parts)

    return min(splits(spec, ranks), key=rated)
