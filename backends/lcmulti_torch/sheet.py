"""Cosines of neighbouring filters in a few passes over the kernel, forwards and backwards.

With ``s`` one over a filter's length, ``k`` its weights and ``n`` the weighted sum of its
neighbours' ``s k``, the sum of weighted cosines has the derivative ``s (n - (s k . n) s k)`` in
``k``. Both are computed in blocks that stay in a core's cache, and the gradient is written in
place; slices that PyTorch differentiates would each fill an array as large as the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lcmulti.operations.neighbours import Link, plain_cosines, scale_of
from lcmulti.operations.pairs import Range
from lcmulti.plugins.contract import Backend
from lcmulti_torch.watched import is_transformed

__all__ = ["neighbour_cosines"]

BLOCK = 2**20
"""Bytes of the kernel that are worked on at a time."""

Block = tuple[slice, slice]


def neighbour_cosines(owner: Backend, kernel: Any, bias: Any, links: tuple[Link, ...]) -> Any:
    """See `lcmulti.operations.neighbours.cosines`."""
    arrays = [each for each in (kernel, bias) if each is not None]
    alike = bias is None or bias.shape[:2] == kernel.shape[:2]
    if not alike or is_transformed(*arrays) or kernel.is_meta:
        return plain_cosines(owner, kernel, bias, links)
    if torch.is_grad_enabled() and any(each.requires_grad for each in arrays):
        return _Cosines.apply(owner, kernel, bias, links)
    with _unrounded(kernel):
        return _forward(_weights(kernel, bias), links)[0]


def _unrounded(kernel: Any) -> AbstractContextManager[Any]:
    """No autocast, which would tell neighbours apart in a half type."""
    return nullcontext() if kernel.is_meta else torch.autocast(kernel.device.type, enabled=False)


class _Cosines(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, owner: Backend, kernel: Any, bias: Any, links: tuple[Link, ...]) -> Any:
        with _unrounded(kernel):
            value, scale = _forward(_weights(kernel, bias), links)
        ctx.save_for_backward(kernel, bias, scale)
        ctx.owner, ctx.links = owner, links
        return value

    @staticmethod
    def backward(ctx: Any, grad: Any) -> tuple[Any, ...]:
        kernel, bias, scale = ctx.saved_tensors
        if torch.is_grad_enabled() or is_transformed(kernel, grad):  # a derivative of this one
            return None, *_differentiable(ctx.owner, kernel, bias, ctx.links, grad), None
        with _unrounded(kernel):
            found = _backward(_weights(kernel, bias), scale, ctx.links, grad)
        of_bias = None if bias is None else found[1].view(bias.shape)
        return None, found[0].view(kernel.shape), of_bias, None


def _differentiable(
    owner: Backend, kernel: Any, bias: Any, links: tuple[Link, ...], grad: Any
) -> list[Any]:
    """The gradients by operations that PyTorch can differentiate again."""
    wanted = [each is not None and each.requires_grad for each in (kernel, bias)]
    leaves = [each for each, want in zip((kernel, bias), wanted, strict=True) if want]
    with torch.enable_grad():
        value = plain_cosines(owner, kernel, bias, links)
        found = iter(torch.autograd.grad(value, leaves, grad, create_graph=True))
    return [next(found) if want else None for want in wanted]


def _weights(kernel: Tensor, bias: Tensor | None) -> list[Tensor]:
    """Each as ``(rows, columns, weights of a filter, filters)``."""
    flat = [kernel.detach().contiguous().flatten(2, -2)]
    return flat if bias is None else [*flat, bias.detach()[:, :, None]]


def _forward(arrays: list[Tensor], links: tuple[Link, ...]) -> tuple[Tensor, Tensor]:
    """The sum of weighted cosines, and one over the length of each filter."""
    kernel, *others = arrays
    lengths = kernel.new_empty((*kernel.shape[:2], kernel.shape[-1]))
    for block in _blocks(kernel):
        torch.linalg.vector_norm(kernel[block], dim=2, out=lengths[block])
    lengths.square_()
    for each in others:
        lengths += each[:, :, 0].square()
    scale = scale_of(lengths)
    ends = [end for link in _ends(kernel, links) for end in link[:1]]
    found = []
    for block in _blocks(kernel):
        for array in arrays:
            near = torch.zeros_like(array[block])
            _add_neighbours(array, scale, ends, block, near)
            found.append(near.mul_(array[block]).sum(2).mul_(scale[block]).sum())
    return torch.stack(found).sum(), scale


def _backward(
    arrays: list[Tensor], scale: Tensor, links: tuple[Link, ...], grad: Tensor
) -> list[Tensor]:
    totals = [torch.empty_like(each) for each in arrays]
    ends = [end for link in _ends(arrays[0], links) for end in link]
    for block in _blocks(arrays[0]):
        met = torch.zeros_like(scale[block])
        for array, total in zip(arrays, totals, strict=True):
            near = total[block].zero_()
            _add_neighbours(array, scale, ends, block, near)
            met += (array[block] * near).sum(2)
        factor = scale[block] * grad
        along = -(met * scale[block].square() * factor)[:, :, None]
        for array, total in zip(arrays, totals, strict=True):
            total[block].mul_(factor[:, :, None]).addcmul_(array[block], along)
    return totals


class _End(NamedTuple):
    """Filters, their neighbours, and how much each of these counts."""

    to: tuple[Range, ...]
    of: tuple[Range, ...]
    weights: Tensor


def _ends(kernel: Tensor, links: tuple[Link, ...]) -> list[tuple[_End, _End]]:
    """Both ends of each link."""
    found, own = [], tuple(kernel.shape[:2])
    for link in links:
        first, second = link.pair(own)
        weights = kernel.new_zeros(len(range(*link.first)))
        weights[list(link.chosen)] = link.weight_of(own)
        found.append((_End(first, second, weights), _End(second, first, weights)))
    return found


def _add_neighbours(
    array: Tensor, scale: Tensor, ends: list[_End], block: Block, out: Tensor
) -> None:
    """Add to each filter of a block the weighted neighbours, of length 1.

    Parameters
    ----------
    array : Tensor
        ``(rows, columns, weights of a filter, filters)``.
    scale : Tensor
        ``(rows, columns, filters)``, one over the length of each.
    out : Tensor
        The size of the block.
    """
    for (*to, filters), (*of, others), weights in ends:
        here, there = [], []
        for mine, theirs, within in zip(to, of, block, strict=True):
            start, stop = max(mine[0], within.start), min(mine[1], within.stop)
            here.append(slice(start - within.start, max(stop - within.start, 0)))
            there.append(slice(start + theirs[0] - mine[0], max(stop + theirs[0] - mine[0], 0)))
        target = out[(*here, slice(None), slice(*filters))]
        if target.numel():
            factor = scale[(*there, slice(*others))] * weights
            target.addcmul_(array[(*there, slice(None), slice(*others))], factor[:, :, None])


def _blocks(kernel: Tensor) -> Iterator[Block]:
    """Positions, `BLOCK` bytes of the kernel at a time."""
    rows, columns = kernel.shape[:2]
    room = max(BLOCK // max(kernel[0, 0].numel() * kernel.element_size(), 1), 1)
    high, wide = max(room // columns, 1), min(room, columns)
    for row in range(0, rows, high):
        for column in range(0, columns, wide):
            yield slice(row, min(row + high, rows)), slice(column, min(column + wide, columns))
