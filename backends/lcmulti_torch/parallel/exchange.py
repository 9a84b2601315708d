"""Rows of one axis that travel between ranks, and their gradients, which travel back.

`gather` collects the window that a rank's output positions read. `scatter` is its adjoint: values
for rows of other ranks are sent to these ranks and added there. Each is the derivative of the
other, to any order. Each half of an exchange is a function of its own, so that a rank can compute
in between: `ask` and `window`, `send_home` and `add`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lcmulti.geometry.sharding import AxisPart, Piece, Seen, turn
from lcmulti_torch.parallel.messages import Travel, by_rank, is_traced, start

__all__ = ["Cut", "add", "ask", "gather", "in_turn", "scatter", "send_home", "window"]


class Cut(NamedTuple):
    """One spatial axis of an array, and how it is divided over the ranks.

    Parameters
    ----------
    dim : int
        Dimension of the array.
    size : int
        Rows of the whole axis.
    part : AxisPart
        This rank's part.
    group : str or None
        Name of the group of ranks that own the parts; None if this rank has all rows.
    """

    dim: int
    size: int
    part: AxisPart
    group: str | None

    @property
    def travels(self) -> bool:
        """Whether this rank sends or receives anything."""
        return self.group is not None and self.part.travels

    @property
    def here(self) -> range:
        """The rows that the array has."""
        return range(self.size) if self.group is None else self.part.inputs


def in_turn(cuts: Sequence[Cut]) -> list[Cut]:
    """The axes in the order in which rows travel along them."""
    return sorted(cuts, key=lambda cut: turn(cut.travels, len(cut.here), cut.part.window))


def _linked(x: Tensor, cut: Cut, received: Tensor, expected: Sequence[Piece]) -> Tensor:
    """*x*. If nothing was expected, make a compiler believe that it depends on the exchange.

    Compilers leave out what nothing depends on, and a sum of no elements as well. So the exchange
    gives them a zero.
    """
    nothing = cut.travels and not expected and is_traced()
    return x + received.sum() if nothing else x


def ask(x: Tensor, cut: Cut) -> Travel:
    """Begin to fetch the rows that this rank's windows read and other ranks own."""
    if not cut.travels:
        return Travel(x.new_empty(0))
    part, other = cut.part, _other(x, cut)
    pieces = [(to, _rows(x, cut, rows)) for to, rows in part.sends]
    expected = [(owner, len(rows) * other) for owner, rows in part.receives]
    return start(pieces, expected, x, cut.group or "")


def window(x: Tensor, cut: Cut, received: Tensor, seen: Seen) -> Tensor:
    """The rows that some output positions read; a view if one owner has all of them.

    Parameters
    ----------
    x : Tensor
        The rows that this rank owns.
    cut : Cut
    received : Tensor
        The rows that `ask` fetched.
    seen : Seen
        The wanted rows: all or a part of those that ``cut.part`` reads.
    """
    dim, halos = cut.dim, _halos(x, cut, received)
    others = ((rows, (part, rows)) for part, rows in halos)
    held: list[tuple[range, tuple[int, range] | None]] = [(cut.here, None), *others]
    pieces = []
    for rows in seen.needs:
        for here, halo in sorted(held, key=_first):
            common = range(max(rows.start, here.start), min(rows.stop, here.stop))
            if common and halo is None:
                pieces.append(_rows(x, cut, common))
            elif common and halo is not None:
                pieces.append(halos[halo].narrow(dim, common.start - here.start, len(common)))
    needed = pieces[0] if len(pieces) == 1 else torch.cat(pieces or [x.narrow(dim, 0, 0)], dim)
    needed = _linked(needed, cut, received, cut.part.receives)
    if not seen.before and not seen.after:
        return needed
    copied = [
        needed.index_select(dim, torch.tensor(places, dtype=torch.int64, device=x.device))
        for places in (seen.before, seen.after)
    ]
    return torch.cat(
        [copied[0], needed.narrow(dim, seen.inner.start, len(seen.inner)), copied[1]], dim
    )


def send_home(w: Tensor, cut: Cut) -> tuple[Tensor, Travel]:
    """Begin to send the values for the rows of a window to the ranks that own the rows.

    Returns
    -------
    x : Tensor
        The values for local rows; a view if the window has no other rows.
    travel : Travel
        The exchange, for `add`.
    """
    part, dim = cut.part, cut.dim
    if part.before or part.after:
        first, last = len(part.before), len(part.before) + len(part.inner)
        shape = list(w.shape)
        shape[dim] = part.needed
        needed = w.new_zeros(shape)
        needed.narrow(dim, part.inner.start, len(part.inner)).add_(
            w.narrow(dim, first, last - first)
        )
        for places, at in ((part.before, 0), (part.after, last)):
            index = torch.tensor(places, device=w.device, dtype=torch.int64)
            needed.index_add_(dim, index, w.narrow(dim, at, len(places)))
        w = needed
    own, pieces, at = [], [], 0
    for rows, owner in part.pieces if cut.group else ((rows, None) for rows in part.needs):
        piece = w.narrow(dim, at, len(rows))
        at += len(rows)
        if owner is None:
            own.append((rows, piece))
        else:
            pieces.append((owner, piece))
    if [rows for rows, _ in own] == [cut.here]:
        x = (
            own[0][1].clone() if cut.travels else own[0][1]
        )  # *w* belongs to the caller, so nothing may be added to it
    else:
        shape = list(w.shape)
        shape[dim] = len(cut.here)
        x = w.new_zeros(shape)
        for rows, piece in own:
            _rows(x, cut, rows).copy_(piece)
    if not cut.travels:
        return x, Travel(w.new_empty(0))
    other = _other(w, cut)
    expected = [(to, len(rows) * other) for to, rows in part.sends]
    return x, start(pieces, expected, w, cut.group or "")


def add(x: Tensor, cut: Cut, received: Tensor) -> Tensor:
    """Add the values that other ranks sent for this rank's rows to *x*, in place."""
    at = 0
    for _, rows in sorted(cut.part.sends, key=by_rank) if cut.travels else ():
        place = _rows(x, cut, rows)
        place.add_(received[at : at + place.numel()].view(place.shape))
        at += place.numel()
    return _linked(x, cut, received, cut.part.sends)


def _halos(x: Tensor, cut: Cut, received: Tensor) -> dict[tuple[int, range], Tensor]:
    """The received rows, by owner and range."""
    found: dict[tuple[int, range], Tensor] = {}
    at = 0
    for owner, rows in sorted(cut.part.receives, key=by_rank) if cut.travels else ():
        shape = list(x.shape)
        shape[cut.dim] = len(rows)
        size = prod(shape)
        found[owner, rows] = received[at : at + size].view(shape)
        at += size
    return found


def _first(held: tuple[range, object]) -> int:
    return held[0].start


def _rows(x: Tensor, cut: Cut, rows: range) -> Tensor:
    return x.narrow(cut.dim, rows.start - cut.here.start, len(rows))


def _other(x: Tensor, cut: Cut) -> int:
    """Number of elements in one row."""
    return prod(n for dim, n in enumerate(x.shape) if dim != cut.dim)


def gather(x: Tensor, cuts: Sequence[Cut]) -> Tensor:
    """The window along every axis, differentiable to any order.

    Parameters
    ----------
    x : Tensor
        The rows that this rank owns.
    cuts : sequence of Cut
        One for each spatial axis.
    """
    return _Gather.apply(x, tuple(cuts))


def scatter(w: Tensor, cuts: Sequence[Cut]) -> Tensor:
    """The adjoint of `gather`: from windows to the rows that this rank owns."""
    return _Scatter.apply(w, tuple(cuts))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cuts: tuple[Cut, ...]) -> Tensor:
        ctx.cuts, whole = cuts, x
        for cut in in_turn(cuts):
            x = window(x, cut, ask(x, cut).arrived(), cut.part)
        return x.view_as(x) if x is whole else x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _Scatter.apply(grads[0], ctx.cuts), None


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor, cuts: tuple[Cut, ...]) -> Tensor:
        ctx.cuts, whole = cuts, w
        for cut in reversed(in_turn(cuts)):
            w, travel = send_home(w, cut)
            w = add(w, cut, travel.arrived())
        return w.view_as(w) if w is whole else w

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _Gather.apply(grads[0], ctx.cuts), None
