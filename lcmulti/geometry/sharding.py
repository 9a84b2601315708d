"""A layer cut by output positions over ranks: who owns what, and which input rows travel.

Each axis is cut on its own, by the rule of `torch.chunk`, DTensor and GSPMD: every part has
``ceil(size / parts)`` rows, the last ones fewer or none. A part owns a range of output positions,
with their weights, and a range of input rows. Its windows see rows that others own: the *halo*.

Rows travel along one axis after the other. Each exchange includes the rows that earlier ones have
brought, so corners need no messages of their own. `turn` gives the order of the axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from lcmulti.geometry.fields import Spec, SpecFields, replace_fields
from lcmulti.geometry.shapes import window_extent

__all__ = ["AxisPart", "Piece", "Seen", "axis_parts", "local_spec", "owned", "seen", "turn"]


class Piece(NamedTuple):
    """Input rows that travel between this part and another.

    Parameters
    ----------
    part : int
        The other part.
    rows : range
        Of the whole input.
    """

    part: int
    rows: range


@dataclass(frozen=True, slots=True)
class Seen:
    """What consecutive output positions see of one axis.

    They read the rows of `needs`. Their *window* is copies of the rows `before`, the rows `inner`,
    and copies of the rows `after`. Copies are padding in a mode other than zeros. Zeros are not
    part of the window: `padding` tells how many go around it.

    Parameters
    ----------
    outputs : range
    needs : tuple of range
        Input rows their windows see, each once, in order.
    padding : tuple of (int, int)
        Zeros around the window.
    inner : range
        Places in `needs`.
    before, after : tuple of int
        Places in `needs`.
    """

    outputs: range
    needs: tuple[range, ...]
    padding: tuple[int, int]
    inner: range
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def needed(self) -> int:
        """Number of input rows in `needs`."""
        return sum(map(len, self.needs))

    @property
    def window(self) -> int:
        """Rows of the window, without `padding`."""
        return len(self.before) + len(self.inner) + len(self.after)


@dataclass(frozen=True, slots=True)
class AxisPart(Seen):
    """One part of one axis: what its output positions see, and who owns that.

    Parameters
    ----------
    part : int
    inputs : range
        Input rows that the part owns; `outputs` are the positions it owns.
    receives : tuple of Piece
        Which rows of `needs` others own, in order. All of it is the halo.
    sends : tuple of Piece
        Rows it owns that others need.
    """

    part: int
    inputs: range
    receives: tuple[Piece, ...]
    sends: tuple[Piece, ...]

    @property
    def travels(self) -> bool:
        """Whether it sends or receives any rows."""
        return bool(self.receives or self.sends)

    @property
    def halo(self) -> int:
        """Number of input rows that come from others."""
        return sum(len(piece.rows) for piece in self.receives)

    @property
    def pieces(self) -> Iterator[tuple[range, int | None]]:
        """The rows of `needs` by owner: stretches ``(rows, part)``, None for its own."""
        for rows in self.needs:
            at = rows.start
            for piece in self.receives:
                if piece.rows.start not in rows:
                    continue
                if piece.rows.start > at:
                    yield range(at, piece.rows.start), None
                yield piece.rows, piece.part
                at = piece.rows.stop
            if at < rows.stop:
                yield range(at, rows.stop), None


def turn(travels: bool, rows: int, window: int) -> int:
    """Key that sorts the axes of an exchange.

    First come axes along which windows only leave out rows, because then the other messages are
    smaller. (Those of a rank without positions are empty.) Then come those along which rows travel,
    and those where rows are copied come last. Ranks that exchange rows along one axis have the same
    part of all others, so they use one order.

    Parameters
    ----------
    travels : bool
        Whether rows travel along the axis.
    rows, window : int
        Rows before and after it had its turn.
    """
    if travels:
        return 1
    return 0 if window < rows else 2


def owned(size: int, parts: int, part: int) -> range:
    """The rows of an axis of *size* that one of *parts* owns."""
    each = -(-size // parts)
    return range(min(part * each, size), min((part + 1) * each, size))


# Cached: planning a call asks for the same parts at each one.
@lru_cache(maxsize=256)
def axis_parts(spec: SpecFields, axis: int, parts: int) -> tuple[AxisPart, ...]:
    """Cut one axis of *spec* into *parts*.

    Parameters
    ----------
    spec : LocalConvSpec
    axis : int
        A spatial axis, of the output as of the input.
    parts : int

    Returns
    -------
    tuple of AxisPart
        In order.
    """
    size, count = spec.input_size[axis], spec.output_size[axis]
    each = -(-size // parts)
    wanted = [seen(spec, axis, owned(count, parts, part)) for part in range(parts)]
    received = [tuple(_from_others(window.needs, each, part)) for part, window in enumerate(wanted)]
    sent: list[list[Piece]] = [[] for _ in range(parts)]
    for part, pieces in enumerate(received):
        for piece in pieces:
            sent[piece.part].append(Piece(part, piece.rows))
    return tuple(
        AxisPart(
            window.outputs, window.needs, window.padding, window.inner, window.before, window.after,
            part, owned(size, parts, part), received[part], tuple(sent[part]),
        )
        for part, window in enumerate(wanted)
    )  # fmt: skip


def seen(spec: SpecFields, axis: int, outputs: range) -> Seen:
    """What the windows of *outputs* see along one spatial axis."""
    if not outputs:
        return Seen(outputs, (), (0, 0), range(0), (), ())
    size, low = spec.input_size[axis], spec.padding[axis][0]
    start = outputs.start * spec.strides[axis] - low
    extent = window_extent(spec.kernel_size[axis], spec.dilation[axis])
    stop = (outputs.stop - 1) * spec.strides[axis] + extent - low
    inside = range(min(max(start, 0), size), max(min(stop, size), 0))
    if not inside:  # in the padding altogether
        inside = range(0)
    ahead = range(start, min(stop, 0))
    behind = range(max(start, size), stop)
    if spec.padding_mode == "zeros":
        rows = (inside,) if inside else ()
        return Seen(outputs, rows, (len(ahead), len(behind)), range(len(inside)), (), ())
    before, after = (_copied(spec.padding_mode, size, rows) for rows in (ahead, behind))
    copied = (range(min(rows), max(rows) + 1) for rows in (before, after) if rows)
    needs = _merged([inside, *copied])
    places = [tuple(_place(needs, row) for row in rows) for rows in (before, after)]
    first = _place(needs, inside.start) if inside else 0
    return Seen(outputs, needs, (0, 0), range(first, first + len(inside)), *places)


def _copied(mode: str, size: int, rows: range) -> list[int]:
    """The input rows that padding *rows* copies; at most one turn, as the spec has checked."""
    if mode == "circular":
        return [row % size for row in rows]
    if mode == "replicate":
        return [min(max(row, 0), size - 1) for row in rows]
    return [-row if row < 0 else 2 * (size - 1) - row for row in rows]


def _merged(ranges: list[range]) -> tuple[range, ...]:
    """The same rows as ranges, in order, with gaps between them."""
    found: list[range] = []
    for rows in sorted(filter(None, ranges), key=lambda each: each.start):
        if found and rows.start <= found[-1].stop:
            found[-1] = range(found[-1].start, max(found[-1].stop, rows.stop))
        else:
            found.append(rows)
    return tuple(found)


def _place(ranges: tuple[range, ...], row: int) -> int:
    """Where *row* is when *ranges* follow each other."""
    passed = 0
    for rows in ranges:
        if row in rows:
            return passed + row - rows.start
        passed += len(rows)
    raise AssertionError(f"row {row} is in none of {ranges}")


def _from_others(needs: tuple[range, ...], each: int, part: int) -> Iterator[Piece]:
    """Split *needs* by owner, who has *each* rows, and leave out *part* itself."""
    for rows in needs:
        for owner in range(rows.start // each, (rows.stop - 1) // each + 1):
            if owner != part:
                yield Piece(
                    owner, range(max(rows.start, owner * each), min(rows.stop, (owner + 1) * each))
                )


def local_spec(spec: Spec, parts: Sequence[Seen]) -> Spec | None:
    """What one rank computes, on the window of its `AxisPart` along each axis.

    Returns
    -------
    LocalConvSpec or None
        In the data format of *spec*, with the zeros that remain to be padded. None for a rank
        that has no positions. Along an axis where all windows lie in the padding, its input is
        those zeros.
    """
    outputs = tuple(len(part.outputs) for part in parts)
    if 0 in outputs:
        return None
    window = tuple(part.window or sum(part.padding) for part in parts)
    padding = tuple(part.padding if part.window else (0, 0) for part in parts)
    return replace_fields(
        spec,
        input_size=window,
        output_size=outputs,
        padding=padding,
        padding_mode="zeros",
        shared_axes=tuple(axis for axis in spec.shared_axes if outputs[axis] > 1),
    )
