"""Products of pairs of filters without a copy of the kernel, also in the backward pass.

Filters of the same position are multiplied in one matrix product, a block of positions at a time.
Filters of neighbouring positions are multiplied element by element. The gradient is written in
place. If PyTorch differentiated the slices, each would make an array of the kernel's size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from lcmulti.operations.pairs import Pair, Range, taken
from lcmulti_torch.precision import refuse_rounding
from lcmulti_torch.watched import is_transformed

__all__ = ["pair_products"]

BLOCK = 16 * 2**20
"""Bytes of the kernel in one block."""
MOST_FILTERS = 128
"""Up to this many filters, the products of all pairs cost less than those of selected pairs, unless
a filter has fewer weights than there are filters: then there are more products than weights."""


def pair_products(kernel: Tensor, pairs: tuple[Pair, ...]) -> list[Tensor]:
    """See `lcmulti.operations.pairs.products`."""
    if is_transformed(kernel):
        return list(_plain(kernel, pairs))
    with unrounded(kernel):
        if torch.is_grad_enabled() and kernel.requires_grad:
            return list(_Products.apply(kernel, pairs))
        return _forward(kernel, pairs)


def unrounded(kernel: Tensor) -> AbstractContextManager[Any]:
    """A context without autocast: a half type cannot distinguish neighbours."""
    refuse_rounding(kernel)
    kind = kernel.device.type
    return nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False)


def _plain(kernel: Tensor, pairs: tuple[Pair, ...]) -> tuple[Tensor, ...]:
    """In PyTorch's own operations, for transforms and tracers."""
    window = tuple(range(2, kernel.dim() - 1))
    return tuple((taken(kernel, a) * taken(kernel, b)).sum(window) for a, b in pairs)


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: Tensor, pairs: tuple[Pair, ...]) -> tuple[Tensor, ...]:
        ctx.save_for_backward(kernel)
        ctx.pairs = pairs
        return tuple(_forward(kernel, pairs))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (kernel,) = ctx.saved_tensors
        # Here the gradient is differentiated again.
        if torch.is_grad_enabled() or is_transformed(kernel, *grads):
            with torch.enable_grad():
                found = _plain(kernel, ctx.pairs)
                (grad,) = torch.autograd.grad(found, kernel, grads, create_graph=True)
            return grad, None
        with unrounded(kernel):
            return _backward(kernel.detach(), ctx.pairs, grads), None


def _forward(kernel: Tensor, pairs: tuple[Pair, ...]) -> list[Tensor]:
    kernel = _flat(kernel.detach())
    found = [kernel.new_empty(_sizes(first)) for first, _ in pairs]
    here, there = _sorted(pairs)
    for rows, columns in _blocks(kernel):
        part = _lined_up(kernel[rows, columns])
        square = torch.bmm(part.mT, part) if len(here) > 1 and _is_square(kernel) else None
        for i in here:
            (*_, first), (*_, second) = pairs[i]
            if square is None:
                product = (part[..., slice(*first)] * part[..., slice(*second)]).sum(1)
            else:
                offset = second[0] - first[0]
                product = square.diagonal(offset, 1, 2)[..., slice(*first)]
            target = found[i][rows, columns]
            target.copy_(product.view(target.shape))
    for i in there:
        first, second = (taken(kernel, each) for each in pairs[i])
        for rows, columns in _blocks(first):
            found[i][rows, columns] = (first[rows, columns] * second[rows, columns]).sum(2)
    return found


def _backward(kernel: Tensor, pairs: tuple[Pair, ...], grads: tuple[Tensor, ...]) -> Tensor:
    shape, kernel = kernel.shape, _flat(kernel)
    total = torch.empty_like(kernel)
    here, there = _sorted(pairs)
    for rows, columns in _blocks(kernel):
        part, out = _lined_up(kernel[rows, columns]), _lined_up(total[rows, columns])
        given = [grads[i][rows, columns].flatten(0, 1) for i in here]
        if len(here) > 1 and _is_square(kernel):
            filters = part.shape[-1]
            factors = part.new_zeros(len(part), filters, filters)
            for i, grad in zip(here, given, strict=True):
                (*_, first), (*_, second) = pairs[i]
                offset = second[0] - first[0]
                factors.diagonal(offset, 1, 2)[..., slice(*first)] += grad
            torch.bmm(part, factors + factors.mT, out=out)
            continue
        out.zero_()
        for i, grad in zip(here, given, strict=True):
            one, other = (slice(*each[-1]) for each in pairs[i])
            out[..., one].addcmul_(part[..., other], grad[:, None])
            out[..., other].addcmul_(part[..., one], grad[:, None])
    for i in there:
        ends = pairs[i]
        for to, of in (ends, ends[::-1]):
            target, factor, grad = taken(total, to), taken(kernel, of), grads[i][:, :, None]
            for rows, columns in _blocks(target):
                target[rows, columns].addcmul_(factor[rows, columns], grad[rows, columns])
    return total.view(shape)


def _flat(kernel: Tensor) -> Tensor:
    """``(rows, columns, weights of a filter, filters)``."""
    return kernel.contiguous().flatten(2, -2)


def _lined_up(block: Tensor) -> Tensor:
    """A block with its positions along one axis; a view."""
    return block.view(-1, *block.shape[2:])


def _sizes(ranges: tuple[Range, ...]) -> tuple[int, ...]:
    return tuple(len(range(*each)) for each in ranges)


def _sorted(pairs: tuple[Pair, ...]) -> tuple[list[int], list[int]]:
    """Split pairs into those of filters of the same position, at all positions, and the others."""
    whole = pairs[0].first[:2]
    here = [
        i
        for i, (first, second) in enumerate(pairs)
        if first[:2] == second[:2] == whole and first[-1][2] == 1 and second[-1] >= first[-1]
    ]
    return here, [i for i in range(len(pairs)) if i not in here]


def _is_square(kernel: Tensor) -> bool:
    _, _, weights, filters = kernel.shape
    return bool(filters <= min(MOST_FILTERS, weights))


def _blocks(array: Tensor) -> Iterator[tuple[slice, slice]]:
    """Slices of the positions of an array ``(rows, columns, ..)``, of about `BLOCK` bytes each."""
    rows, columns = array.shape[:2]
    room = max(BLOCK // max(array[0, 0].numel() * array.element_size(), 1), 1) if rows else 1
    at_once, wide = max(room // max(columns, 1), 1), min(room, columns)
    for row in range(0, rows, at_once):
        for column in range(0, columns, max(wide, 1)):
            yield slice(row, row + at_once), slice(column, column + wide)
