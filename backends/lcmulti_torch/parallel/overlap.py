"""Compute while halos travel: first with zeros in place of the missing rows.

Positions whose windows need only local rows are right at once. The few others, at the borders, are
computed again when the halos have arrived, and overwritten. In the backward pass, the kernel's
gradient is computed while the gradients of other ranks' rows travel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lcmulti.geometry.shapes import window_extent
from lcmulti.geometry.sharding import Seen, seen
from lcmulti_torch.memory import is_channels_first, laid_out, owned
from lcmulti_torch.parallel.exchange import Cut, add, ask, gather, in_turn, send_home, window
from lcmulti_torch.parallel.halves import input_grad
from lcmulti_torch.parallel.part import (
    Part,
    blank,
    closed,
    outputs_of,
    raw,
    rows_of,
    unblank,
)

__all__ = ["local_conv", "local_conv_transpose"]

MOST = 0.25
"""Largest share of positions that may be computed twice."""


def local_conv(x: Tensor, kernel: Tensor, part: Part, transformed: bool) -> Tensor:
    """Outputs of this rank, from the input rows that it owns."""
    if transformed:
        return outputs_of(x, kernel, part, transformed)
    return _Forward.apply(x, kernel, part)


def local_conv_transpose(x: Tensor, kernel: Tensor, part: Part, transformed: bool) -> Tensor:
    """The rows of the transposed result that this rank owns, from its positions."""
    if transformed:
        return rows_of(x, kernel, part, transformed)
    return _Transposed.apply(x, kernel, part)


class _Forward(torch.autograd.Function):
    """The forward map. Its gradients overlap as well, unless they are differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, part: Part) -> Tensor:
        ctx.part = part
        x, kernel = x.resolve_conj(), kernel.resolve_conj()
        y, halos = _forward(x, kernel, part)
        ctx.save_for_backward(x, kernel, *halos)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, kernel, *halos = ctx.saved_tensors
        part, (dy,) = ctx.part, grads
        of_x, of_kernel, _ = ctx.needs_input_grad
        dx = dkernel = None
        if torch.is_grad_enabled():  # the gradients will be differentiated again
            w = blank(gather(x.conj(), part.cuts), part.cuts)
            if of_x:
                dx = rows_of(dy, kernel.conj(), part, False)
            if of_kernel:
                dkernel = closed(part, "kernel_grad", w, dy, False)
            return dx, dkernel, None
        dy = dy.resolve_conj()

        def of_weights() -> Tensor:
            w = blank(_windowed(x, part, halos), part.cuts).conj().resolve_conj()
            return raw(part, "kernel_grad", part.last(w), part.last(dy), part.seen)

        if of_x:
            dx, dkernel = _home(
                dy, kernel.conj().resolve_conj(), part, of_weights if of_kernel else None
            )
        elif of_kernel:
            dkernel = of_weights()
        return dx, dkernel, None


class _Transposed(torch.autograd.Function):
    """The map ``input_grad`` as the operation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, part: Part) -> Tensor:
        ctx.part = part
        ctx.save_for_backward(x, kernel)
        return _home(x.resolve_conj(), kernel.resolve_conj(), part)[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, kernel = ctx.saved_tensors
        part, (dy,) = ctx.part, grads
        of_x, of_kernel, _ = ctx.needs_input_grad
        dx = dkernel = None
        if torch.is_grad_enabled():
            w = blank(gather(dy, part.cuts), part.cuts)
            if of_x:
                dx = closed(part, "forward", w, kernel.conj(), False)
            if of_kernel:
                dkernel = closed(part, "kernel_grad", w, x.conj(), False)
            return dx, dkernel, None
        dy = dy.resolve_conj()
        if of_x:
            dx, halos = _forward(dy, kernel.conj().resolve_conj(), part)
        else:
            halos = _halos(dy, part)
        if of_kernel:
            w = part.last(blank(_windowed(dy, part, halos), part.cuts))
            x = part.last(x).conj().resolve_conj()
            dkernel = raw(part, "kernel_grad", w, x, part.seen)
        return dx, dkernel, None


def _home(
    dy: Tensor, kernel: Tensor, part: Part, meanwhile: Callable[[], Any] | None = None
) -> tuple[Tensor, Any]:
    """The map ``input_grad`` with rows sent to their owners, and the result of *meanwhile*."""
    dw = part.back(input_grad(part.last(dy), kernel, part))
    dx, computed = unblank(dw, part.cuts), None
    for cut in reversed(in_turn(part.cuts)):
        dx, travel = send_home(dx, cut)
        if cut.travels and meanwhile is not None:
            computed, meanwhile = meanwhile(), None
        dx = add(dx, cut, travel.arrived())
    if meanwhile is not None:
        computed = meanwhile()
    return _placed(part, dy, part.last(dx.to(dy.dtype))), computed


def _windowed(x: Tensor, part: Part, halos: list[Tensor]) -> Tensor:
    """The window, from local and received rows."""
    for cut, received in zip(in_turn(part.cuts), halos, strict=True):
        x = window(x, cut, received, cut.part)
    return x


def _halos(x: Tensor, part: Part) -> list[Tensor]:
    """The rows that are received along each of the axes in turn."""
    received = []
    for cut in in_turn(part.cuts):
        received.append(ask(x, cut).arrived())
        x = window(x, cut, received[-1], cut.part)
    return received


def _forward(x: Tensor, kernel: Tensor, part: Part) -> tuple[Tensor, list[Tensor]]:
    """The outputs, and the rows that were received along each of the axes in turn."""
    like, order, received = x, in_turn(part.cuts), []
    while not order[0].travels and len(order) > 1:
        received.append(x.new_empty(0))
        x = window(x, order[0], received[-1], order[0].part)
        order = order[1:]
    first, *others = order
    axis = part.cuts.index(first)
    inner = _inner(part, axis) if not any(cut.travels for cut in others) else None
    travel = ask(x, first)
    if inner is not None:
        positions, ahead = inner
        y = _outputs(_rows_here(x, first, ahead), kernel, part, others, axis, ahead)
    received.append(travel.arrived())
    if inner is None:
        w = window(x, first, received[-1], first.part)
        for cut in others:
            received.append(ask(w, cut).arrived())
            w = window(w, cut, received[-1], cut.part)
        w = part.last(blank(w, part.cuts))
        return _placed(part, like, raw(part, "forward", w, kernel, part.seen)), received
    outputs, halos = first.part.outputs, received[-1]
    for border in (range(outputs.start, positions.start), range(positions.stop, outputs.stop)):
        if not border:
            continue
        wanted, at = seen(part.whole, axis, border), border.start - outputs.start
        shared = kernel.shape[axis] != len(outputs)
        weights = kernel if shared else kernel.narrow(axis, at, len(border))
        w = window(x, first, halos, wanted)
        place = y.narrow(axis + 1, at, len(border))
        place.copy_(_outputs(w, weights, part, others, axis, wanted))
    return _placed(part, like, y), received + [x.new_empty(0)] * len(others)


def _placed(part: Part, like: Tensor, y: Tensor) -> Tensor:
    """A channels-last result in the caller's data format, with the memory order of *like*."""
    return owned(laid_out(y, is_channels_first(part.last(like)), part.first))


def _outputs(
    w: Tensor, kernel: Tensor, part: Part, others: list[Cut], axis: int, wanted: Seen
) -> Tensor:
    """Outputs of the positions *wanted* along one axis, and of this rank's along the others."""
    for cut in others:
        w = window(w, cut, w.new_empty(0), cut.part)
    seen = tuple(each if i != axis else wanted for i, each in enumerate(part.seen))
    w = part.last(blank(w, part.cuts, seen))
    return raw(part, "forward", w, kernel, seen)


def _rows_here(x: Tensor, cut: Cut, wanted: Seen) -> Tensor:
    (rows,) = wanted.needs
    return x.narrow(cut.dim, rows.start - cut.part.inputs.start, len(rows))


def _inner(part: Part, axis: int) -> tuple[range, Seen] | None:
    """The positions that need only local rows, and a window of these rows for all positions.

    None if nothing travels along this axis, or if there are too few such positions.
    """
    cut, whole = part.cuts[axis], part.whole
    outputs, own = cut.part.outputs, cut.part.inputs
    if not cut.travels or not outputs or not own:
        return None
    stride, low = whole.strides[axis], whole.padding[axis][0]
    extent = window_extent(whole.kernel_size[axis], whole.dilation[axis])
    zeros = whole.padding_mode == "zeros"
    first, stop = outputs.start, outputs.stop
    if own.start or not zeros:
        first = max(first, -(-(own.start + low) // stride))
    if own.stop < cut.size or not zeros:
        stop = min(stop, (own.stop + low - extent) // stride + 1)
    if first >= stop or len(outputs) - (stop - first) > MOST * len(outputs):
        return None
    start, end = outputs.start * stride - low, (outputs.stop - 1) * stride + extent - low
    rows = range(max(start, own.start), min(end, own.stop))
    if not rows:  # the positions see nothing but padding
        return None
    padding = (rows.start - start, end - rows.stop)
    return range(first, stop), Seen(outputs, (rows,), padding, range(len(rows)), (), ())
