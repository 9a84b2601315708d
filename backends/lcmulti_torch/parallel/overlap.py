"""A rank computes while halos travel: its inner positions first, with zeros for what is missing.

Positions whose windows lie in rows that are here are right at once. The few at the borders are
computed once more when the halos have come, and written over. In the backward pass the kernel's
gradient is computed while what was found for rows of others is on its way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lcmulti.geometry.shapes import window_extent
from lcmulti.geometry.sharding import Seen, seen
from lcmulti_torch.memory import is_channels_first, laid_out, owned
from lcmulti_torch.parallel.exchange import Cut, add, ask, gather, send_home, window
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
"""Share of positions that may be computed twice."""


def local_conv(x: torch.Tensor, kernel: torch.Tensor, part: Part, transformed: bool) -> Any:
    """Outputs of this rank, from the input rows it owns."""
    if transformed:
        return outputs_of(x, kernel, part, transformed)
    return _Forward.apply(x, kernel, part)


def local_conv_transpose(
    x: torch.Tensor, kernel: torch.Tensor, part: Part, transformed: bool
) -> Any:
    """Rows of the transposed result that this rank owns, from its positions."""
    if transformed:
        return rows_of(x, kernel, part, transformed)
    return _Transposed.apply(x, kernel, part)


class _Forward(torch.autograd.Function):
    """The forward map; without a graph of its gradients, they too are overlapped."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, kernel: torch.Tensor, part: Part) -> torch.Tensor:
        ctx.part = part
        x, kernel = x.resolve_conj(), kernel.resolve_conj()
        y, halos = _forward(x, kernel, part)
        ctx.save_for_backward(x, kernel, *halos)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        x, kernel, *halos = ctx.saved_tensors
        part, (dy,) = ctx.part, grads
        of_x, of_kernel, _ = ctx.needs_input_grad
        dx = dkernel = None
        if torch.is_grad_enabled():  # the gradients' own are asked for
            w = blank(gather(x.conj(), part.cuts), part.cuts)
            if of_x:
                dx = rows_of(dy, kernel.conj(), part, False)
            if of_kernel:
                dkernel = closed(part, "kernel_grad", w, dy, False)
            return dx, dkernel, None
        dy = dy.resolve_conj()

        def of_weights() -> torch.Tensor:
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
    """The input gradient's map as the operation."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, kernel: torch.Tensor, part: Part) -> torch.Tensor:
        ctx.part = part
        ctx.save_for_backward(x, kernel)
        return _home(x.resolve_conj(), kernel.resolve_conj(), part)[0]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
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
    dy: torch.Tensor, kernel: torch.Tensor, part: Part, meanwhile: Callable[[], Any] | None = None
) -> tuple[torch.Tensor, Any]:
    """The input gradient's map, rows sent to their owners, and what is computed meanwhile."""
    dw = part.back(input_grad(part.last(dy), kernel, part))
    last, *rest = reversed(_ordered(part))
    dx, travel = send_home(unblank(dw, part.cuts), last)
    computed = None if meanwhile is None else meanwhile()
    dx = add(dx, last, travel.arrived())
    for cut in rest:
        dx, travel = send_home(dx, cut)
        dx = add(dx, cut, travel.arrived())
    dx = dx.to(dy.dtype)
    return _placed(part, dy, part.last(dx)), computed


def _ordered(part: Part) -> list[Cut]:
    """Axes along which something travels, then the others."""
    return sorted(part.cuts, key=lambda cut: not cut.travels)


def _windowed(x: torch.Tensor, part: Part, halos: list[torch.Tensor]) -> torch.Tensor:
    """The window, of what is here and what was received."""
    for cut, received in zip(_ordered(part), halos, strict=True):
        x = window(x, cut, received, cut.part)
    return x


def _halos(x: torch.Tensor, part: Part) -> list[torch.Tensor]:
    """What is received along each of `_ordered` axes."""
    received = []
    for cut in _ordered(part):
        received.append(ask(x, cut).arrived())
        x = window(x, cut, received[-1], cut.part)
    return received


def _forward(
    x: torch.Tensor, kernel: torch.Tensor, part: Part
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The outputs, and what was received along each of `_ordered` axes."""
    first, *others = _ordered(part)
    axis = part.cuts.index(first)
    inner = _inner(part, axis) if not any(cut.travels for cut in others) else None
    travel = ask(x, first)
    if inner is not None:
        positions, ahead = inner
        y = _outputs(_rows_here(x, first, ahead), kernel, part, others, axis, ahead)
    received = [travel.arrived()]
    if inner is None:
        w = window(x, first, received[0], first.part)
        for cut in others:
            received.append(ask(w, cut).arrived())
            w = window(w, cut, received[-1], cut.part)
        w = part.last(blank(w, part.cuts))
        return _placed(part, x, raw(part, "forward", w, kernel, part.seen)), received
    outputs = first.part.outputs
    for border in (range(outputs.start, positions.start), range(positions.stop, outputs.stop)):
        if not border:
            continue
        wanted, at = seen(part.whole, axis, border), border.start - outputs.start
        shared = kernel.shape[axis] != len(outputs)
        weights = kernel if shared else kernel.narrow(axis, at, len(border))
        w = window(x, first, received[0], wanted)
        place = y.narrow(axis + 1, at, len(border))
        place.copy_(_outputs(w, weights, part, others, axis, wanted))
    return _placed(part, x, y), received + [x.new_empty(0)] * len(others)


def _placed(part: Part, like: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A result that is channels last, as its caller has arrays, and in memory as *like* is."""
    return owned(laid_out(y, is_channels_first(part.last(like)), part.first))


def _outputs(
    w: torch.Tensor, kernel: torch.Tensor, part: Part, others: list[Cut], axis: int, wanted: Seen
) -> torch.Tensor:
    """Outputs of what *wanted* sees along one axis and this rank along the others."""
    for cut in others:
        w = window(w, cut, w.new_empty(0), cut.part)
    cuts = [c if i != axis else c._replace(part=wanted) for i, c in enumerate(part.cuts)]
    w = part.last(blank(w, cuts))
    return raw(part, "forward", w, kernel, tuple(cut.part for cut in cuts))


def _rows_here(x: torch.Tensor, cut: Cut, wanted: Seen) -> torch.Tensor:
    (rows,) = wanted.needs
    return x.narrow(cut.dim, rows.start - cut.part.inputs.start, len(rows))


def _inner(part: Part, axis: int) -> tuple[range, Seen] | None:
    """Positions that see nothing but rows that are here, and a window of those for all.

    None where nothing travels here, or too few positions are such.
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
    padding = (rows.start - start, end - rows.stop)
    return range(first, stop), Seen(outputs, (rows,), padding, range(len(rows)), (), ())
