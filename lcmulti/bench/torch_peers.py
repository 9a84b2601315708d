"""What people write in PyTorch, channels first."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch.nn.functional import pad, unfold

from lcmulti.bench.contenders import Contender
from lcmulti.bench.workloads import Arrays
from lcmulti.types import Array
from lcmulti.weights.layouts import export_kernel

__all__ = ["eir_einsum", "forum_recipe", "unfold_einsum", "views_einsum"]

FIRST = "channels_first"


def _contender(function: Any, arrays: Arrays, weights: Any) -> Contender:
    return Contender(function, arrays.oriented("x", FIRST), weights, arrays.oriented("dy", FIRST))


def _pads(arrays: Arrays) -> list[int]:
    """Padding as `torch.nn.functional.pad` takes it."""
    return [n for pair in reversed(arrays.spec.padding) for n in pair]


def unfold_einsum(arrays: Arrays) -> Contender:
    """`torch.nn.functional.unfold` and one ``einsum``."""
    spec, pads = arrays.spec, _pads(arrays)
    flat = spec.ndim == 1  # unfold is 2D
    window, strides = spec.kernel_size, spec.strides
    if flat:
        window, strides = (1, *window), (1, *strides)

    def function(x: Array, weights: Any) -> Any:
        x = pad(x, pads)
        patches = unfold(x[:, :, None] if flat else x, window, stride=strides)
        return torch.einsum("nkp,pkf->nfp", patches, weights).unflatten(-1, spec.output_size)

    # Flax and unfold order a window alike, channels first.
    weights = export_kernel(arrays.kernel, "flax", spec)
    return _contender(function, arrays, weights.reshape(-1, spec.terms, spec.filters))


def views_einsum(arrays: Arrays) -> Contender:
    """Strided views by `torch.Tensor.unfold`, and one ``einsum``, which copies them."""
    spec, pads = arrays.spec, _pads(arrays)
    o, k = "opqrs"[: spec.ndim], "ijkab"[: spec.ndim]

    def function(x: Array, weights: Any) -> Any:
        patches = pad(x, pads)
        for axis, (size, step) in enumerate(zip(spec.kernel_size, spec.strides, strict=True)):
            patches = patches.unfold(axis + 2, size, step)
        return torch.einsum(f"nc{o}{k},{o}{k}cf->nf{o}", patches, weights)

    return _contender(function, arrays, arrays.kernel)


def forum_recipe(arrays: Arrays) -> Contender:
    """``LocallyConnected2d`` of discuss.pytorch.org 26979: all products, then their sum."""
    (kh, kw), (sh, sw), pads = arrays.spec.kernel_size, arrays.spec.strides, _pads(arrays)

    def function(x: Array, weights: Any) -> Any:
        x = pad(x, pads).unfold(2, kh, sh).unfold(3, kw, sw)
        x = x.contiguous().view(*x.size()[:-2], -1)
        return (x.unsqueeze(1) * weights).sum([2, -1])

    return _contender(function, arrays, export_kernel(arrays.kernel, "pytorch-recipe", arrays.spec))


def eir_einsum(arrays: Arrays) -> Contender:
    """EIR's LCL, where windows tile one channel."""
    spec, batch, positions = arrays.spec, arrays.batch, prod(arrays.spec.output_size)

    def function(x: Array, weights: Any) -> Any:
        seen = x.reshape(batch, positions, -1)
        return torch.einsum("nhw,ohw->noh", seen, weights)

    return _contender(function, arrays, export_kernel(arrays.kernel, "eir", spec))
