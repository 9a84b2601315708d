"""Convert a convolution to the layer that computes the same, and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lcmulti.errors import ArgumentError, ArgumentTypeError, described
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.untying import require_same, tolerance_of

__all__ = ["conv_of_layer", "layer_of_conv"]


def layer_of_conv(cls: Any, conv: Any, input_size: Any, **arguments: Any) -> Any:
    """See `LocallyConnectedNd.from_conv`."""
    if not isinstance(conv, cls.convolution):
        raise ArgumentTypeError("conv", f"a torch.nn.{cls.convolution.__name__}", conv)
    if is_lazy(conv.weight):
        seen = described(f"a {type(conv).__name__} that has not seen its first batch")
        raise ArgumentError("conv", "a convolution that has its weights", seen)
    layer = cls(
        conv.in_channels, conv.out_channels, conv.kernel_size, input_size, stride=conv.stride,
        padding=conv.padding, dilation=conv.dilation, groups=conv.groups,
        bias=conv.bias is not None, device="meta", dtype=conv.weight.dtype,
        **cls._convolution_arguments(conv), **arguments,
    )  # fmt: skip
    kernel = conv.weight.movedim((0, 1), (-1, -2))  # to (*kernel_size, .., ..)
    pairs = {"weight": (kernel, conv.weight), "bias": (conv.bias, conv.bias)}
    for name, (values, original) in pairs.items():
        if values is not None:
            own = values.detach().expand(layer._parameter_shapes()[name])
            own = own.clone(memory_format=torch.contiguous_format)
            setattr(layer, name, nn.Parameter(own, original.requires_grad))
    return layer.train(conv.training)


def conv_of_layer(layer: Any, tolerance: float | None) -> Any:
    """See `LocallyConnectedNd.to_conv`."""
    kernel, bias = _mean_weights(layer, tolerance)
    padding = _padding(layer.spec)
    make: Any = layer.convolution
    conv = make(
        layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride,
        padding, groups=layer.groups, dilation=layer.dilation,
        bias=bias is not None, device="meta", dtype=kernel.dtype,
        **layer._convolution_arguments(layer),
    )  # fmt: skip
    weight = kernel.detach().movedim((-1, -2), (0, 1)).contiguous()
    conv.weight = nn.Parameter(weight, kernel.requires_grad)
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach(), bias.requires_grad)
    return conv.train(layer.training)


def _padding(spec: LocalConvSpec) -> tuple[int, ...] | str:
    """As a convolution takes it: the same on both sides, or what it calls ``"same"``."""
    if all(low == high for low, high in spec.padding):
        return tuple(low for low, _ in spec.padding)
    more = [d * (k - 1) for d, k in zip(spec.dilation, spec.kernel_size, strict=True)]
    if set(spec.strides) == {1} and spec.padding == tuple((n // 2, n - n // 2) for n in more):
        return "same"
    shown = described(f"(low, high) pairs {spec.padding}")
    raise ArgumentError("padding", "the same on both sides, as a convolution has", shown)


def _mean_weights(layer: Any, tolerance: float | None) -> tuple[Tensor, Tensor | None]:
    """Kernel ``(*kernel_size, C, F)`` and bias of all positions; raise if they differ."""
    tolerance = tolerance_of(tolerance)
    kernel = _mean(layer, "weight", layer.full_kernel(), tolerance)
    return kernel, None if layer.bias is None else _mean(layer, "bias", layer.bias, tolerance)


def _mean(layer: Any, name: str, each: Tensor, tolerance: float | None) -> Tensor:
    axes = tuple(range(layer.ndim))
    values = each.detach()
    numbers = torch.view_as_real(values) if values.is_complex() else values
    apart = float((numbers.amax(axes) - numbers.amin(axes)).max())
    require_same(name, apart, tolerance)
    # The mean of equal numbers could be rounded.
    mean = values.mean(axes) if apart else values[(0,) * layer.ndim].clone()
    return mean.requires_grad_(each.requires_grad)
