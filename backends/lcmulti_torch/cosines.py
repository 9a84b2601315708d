"""Cosines of neighbouring filters, in the maps of an implementation, and their gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lcmulti import plugins
from lcmulti.operations.neighbours import CosineMaps, Link, composed
from lcmulti.plugins.contract import Resources
from lcmulti_torch.watched import is_transformed

__all__ = ["neighbour_cosines"]


def neighbour_cosines(
    maps: CosineMaps,
    kernel: Tensor,
    bias: Tensor | None,
    links: tuple[Link, ...],
    resources: Resources,
) -> Any:
    """See `lcmulti.operations.neighbours.CosineMaps`; PyTorch's own operations under transforms."""
    if is_transformed(kernel, *([] if bias is None else [bias])):
        return _plain(kernel, bias, links)
    own = *kernel.shape[:2], kernel.shape[-1]
    full = kernel.new_zeros(own) if bias is None else bias.expand(own)
    return _Cosines.apply(kernel, full, maps, links, resources)


def _plain(kernel: Tensor, bias: Tensor | None, links: tuple[Link, ...]) -> Any:
    return composed(plugins.load_backend("torch"), kernel, bias, links)


class _Cosines(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kernel: Tensor,
        bias: Tensor,
        maps: CosineMaps,
        links: tuple[Link, ...],
        resources: Resources,
    ) -> Tensor:
        sums: Tensor = maps.cosine_sums(kernel.detach(), bias.detach(), links, resources)
        ctx.save_for_backward(kernel, bias, sums)
        ctx.maps, ctx.arguments = maps, (links, resources)
        return sums[3].sum() / 2

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor | None, ...]:
        kernel, bias, sums = ctx.saved_tensors
        links, _ = ctx.arguments
        # Here the gradient is differentiated again.
        if torch.is_grad_enabled() or is_transformed(kernel, bias, *above):
            wanted = [
                each
                for each, needed in zip((kernel, bias), ctx.needs_input_grad, strict=False)
                if needed
            ]
            with torch.enable_grad():
                found = _plain(kernel, bias, links)
                grads = iter(torch.autograd.grad(found, wanted, above, create_graph=True))
            return (
                *(next(grads) if needed else None for needed in ctx.needs_input_grad[:2]),
                *(None,) * 3,
            )
        scaled = sums.clone()
        scaled[::2] *= above[0]
        arrays = kernel.detach(), bias.detach().unsqueeze(-2)
        slopes = [
            ctx.maps.cosine_slopes(each, scaled, *ctx.arguments) if needed else None
            for each, needed in zip(arrays, ctx.needs_input_grad, strict=False)
        ]
        of_kernel, of_bias = slopes
        return of_kernel, None if of_bias is None else of_bias.squeeze(-2), None, None, None
