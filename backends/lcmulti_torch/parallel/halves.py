"""Input gradients of half types: sums over several ranks are held in float32.

A row that only one rank uses is rounded once, by the implementation that computes it. For rows that
other ranks use as well, the few positions that use them are computed again in float32.
"""

from __future__ import annotations

import torch

from lcmulti.geometry.shapes import window_extent
from lcmulti.geometry.sharding import seen
from lcmulti_torch.parallel.exchange import Cut
from lcmulti_torch.parallel.part import HALF, Part, raw

__all__ = ["input_grad"]


def input_grad(dy: torch.Tensor, kernel: torch.Tensor, part: Part) -> torch.Tensor:
    """The gradient of a rank's window, channels last; float32 where others add to a half type."""
    moving = [axis for axis, cut in enumerate(part.cuts) if cut.travels]
    if dy.dtype not in HALF or not moving:
        return raw(part, "input_grad", dy, kernel, part.seen)
    if len(moving) > 1 or part.spec is None or not part.cuts[moving[0]].part.window:
        return raw(part, "input_grad", dy.float(), kernel.float(), part.seen)
    (axis,) = moving
    cut = part.cuts[axis]
    outputs, stride = cut.part.outputs, part.whole.strides[axis]
    alone = _alone(part, axis)
    if not alone:
        return raw(part, "input_grad", dy.float(), kernel.float(), part.seen)
    dw = raw(part, "input_grad", dy, kernel, part.seen).float()
    shared = _shared(cut)
    for first, last in shared:
        dw.narrow(axis + 1, first, last - first).zero_()
    for border in (range(outputs.start, alone.start), range(alone.stop, outputs.stop)):
        wanted, at = seen(part.whole, axis, border), border.start - outputs.start
        if not border or not wanted.window:
            continue
        weights = kernel if axis in part.whole.shared_axes else kernel.narrow(axis, at, len(border))
        views = list(part.seen)
        views[axis] = wanted
        found = raw(
            part, "input_grad", dy.narrow(axis + 1, at, len(border)).float(), weights.float(),
            tuple(views),
        )  # fmt: skip
        # Where its window begins in that of the rank, neither with its zeros.
        offset = at * stride + wanted.padding[0] - cut.part.padding[0]
        for first, last in shared:
            start, stop = max(first, offset), min(last, offset + wanted.window)
            if start < stop:
                place = dw.narrow(axis + 1, start, stop - start)
                place.add_(found.narrow(axis + 1, start - offset, stop - start))
    return dw


def _alone(part: Part, axis: int) -> range:
    """Positions whose windows contain no row that another rank uses, and no copy of a row."""
    cut, whole = part.cuts[axis], part.whole
    stride, low = whole.strides[axis], whole.padding[axis][0]
    extent = window_extent(whole.kernel_size[axis], whole.dilation[axis])
    copies = whole.padding_mode != "zeros"
    middle = cut.part.inputs.start + len(cut.part.inputs) // 2
    touched = [piece.rows for piece in (*cut.part.receives, *cut.part.sends)]
    below = max(
        (rows.stop for rows in touched if rows.stop <= middle), default=0 if copies else None
    )
    above = min(
        (rows.start for rows in touched if rows.stop > middle), default=cut.size if copies else None
    )
    first, stop = cut.part.outputs.start, cut.part.outputs.stop
    if below is not None:
        first = max(first, -(-(below + low) // stride))
    if above is not None:
        stop = min(stop, (above + low - extent) // stride + 1)
    return range(first, max(stop, first))


def _shared(cut: Cut) -> list[tuple[int, int]]:
    """Parts of a window that are copies, or rows that other ranks use."""
    part = cut.part
    inner = len(part.before)
    found = [(0, inner), (inner + len(part.inner), part.window)]
    at = 0
    for rows in part.needs:
        for piece in sorted({p.rows for p in (*part.receives, *part.sends)}, key=lambda r: r.start):
            start = max(rows.start, piece.start) - rows.start + at
            stop = min(rows.stop, piece.stop) - rows.start + at
            start, stop = max(start, part.inner.start), min(stop, part.inner.stop)
            if start < stop:
                found.append((start - part.inner.start + inner, stop - part.inner.start + inner))
        at += len(rows)
    return _merged(found)


def _merged(stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, stop in sorted(each for each in stretches if each[0] < each[1]):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        else:
            found.append((start, stop))
    return found
