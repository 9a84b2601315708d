"""Fuse a batch normalisation into the weights of the layer before it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from lcmulti.errors import ArgumentError, ArgumentTypeError, described
from lcmulti_torch.base import LocallyConnectedNd
from lcmulti_torch.transposed import LocallyConnectedTransposeNd

__all__ = ["fuse_bn"]

Layer = TypeVar("Layer", bound=LocallyConnectedNd[Any])


@torch.no_grad()
def fuse_bn(layer: Layer, bn: _BatchNorm) -> Layer:
    """One layer that computes *layer* followed by *bn*, both in evaluation mode.

    As `torch.nn.utils.fuse_conv_bn_eval` for convolutions. The weights of each filter are
    multiplied by ``s = bn.weight / sqrt(bn.running_var + bn.eps)``, and the bias becomes
    ``(bias - bn.running_mean) * s + bn.bias``.

    Parameters
    ----------
    layer : LocallyConnectedNd
        With channels first; may be transposed or low-rank.
    bn : BatchNorm1d, BatchNorm2d, BatchNorm3d or SyncBatchNorm
        With one feature for each filter of *layer*, and with running statistics.

    Returns
    -------
    LocallyConnectedNd
        A new layer, with a bias. *layer* and *bn* are not changed.

    Raises
    ------
    ArgumentError
        If one of them is in training mode or computes something of its own in ``forward`` (an
        activation, say), or they do not fit together.
    """
    if not isinstance(layer, LocallyConnectedNd):
        raise ArgumentTypeError("layer", "a locally connected layer", layer)
    if not isinstance(bn, _BatchNorm):
        raise ArgumentTypeError("bn", "a torch.nn.BatchNorm1d, 2d or 3d", bn)
    _require_fitting(layer, bn)
    mean, scale, shift = _statistics(bn)
    name = "weight" if layer.rank is None else "basis"
    weight, bias = _values(layer, name), _values(layer, "bias")
    old = torch.zeros_like(mean) if bias is None else bias
    fused = _copy_of(layer)
    _put(fused, name, weight * _along_filters(scale, layer), weight)
    new = ((old - mean) * scale + shift).expand(layer._parameter_shapes()["bias"])
    _put(fused, "bias", new, weight if bias is None else bias)
    if layer.rank is not None:
        coefficients = _values(layer, "coefficients")
        _put(fused, "coefficients", coefficients, coefficients)
    return fused


def _require_fitting(layer: LocallyConnectedNd[Any], bn: _BatchNorm) -> None:
    if any(map(is_lazy, layer.parameters())):
        lazy = described(f"a {type(layer).__name__} that has not seen its first batch")
        raise ArgumentError("layer", "a layer that has its weights", lazy)
    _require_forward("layer", layer, LocallyConnectedNd)
    _require_forward("bn", bn, nn.SyncBatchNorm if isinstance(bn, nn.SyncBatchNorm) else _BatchNorm)
    for argument, module in (("layer", layer), ("bn", bn)):
        if module.training:
            training = described(f"one in training mode; call {argument}.eval()")
            raise ArgumentError(argument, "a module in evaluation mode", training)
    if bn.running_mean is None or bn.running_var is None:
        none = described("one with track_running_stats=False, which uses those of the batch")
        raise ArgumentError("bn", "a module with running statistics", none)
    if layer.data_format != "channels_first":
        last = described(f"{layer.data_format}; bn normalises the axis after the batch")
        raise ArgumentError("layer", "data_format='channels_first'", last)
    if bn.num_features != layer.out_channels:
        expected = f"{layer.out_channels} features, the filters of layer"
        raise ArgumentError("bn", expected, described(str(bn.num_features)))


def _require_forward(argument: str, module: nn.Module, kind: type[nn.Module]) -> None:
    if "forward" in module.__dict__ or type(module).forward is not kind.forward:
        own = f"a {type(module).__name__}, which computes something of its own in forward"
        raise ArgumentError(argument, "a module with the forward of its kind", described(own))


def _statistics(bn: _BatchNorm) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, scale and shift of each feature, in float32 or wider."""
    mean, var = bn.running_mean, bn.running_var
    assert mean is not None and var is not None
    wide = torch.promote_types(var.dtype, torch.float32)
    scale = torch.rsqrt(var.to(wide) + bn.eps)
    if bn.weight is not None:
        scale = scale * bn.weight.to(wide)
    shift = torch.zeros_like(scale) if bn.bias is None else bn.bias.to(wide)
    return mean.to(wide), scale, shift


def _along_filters(scale: Tensor, layer: LocallyConnectedNd[Any]) -> Tensor:
    """The factors for the last two axes of a weight."""
    if not isinstance(layer, LocallyConnectedTransposeNd):
        return scale
    # The outputs are the channels of the kernel, in the group of each filter.
    groups = layer.groups
    return scale.reshape(groups, -1).T.repeat_interleave(layer.in_channels // groups, 1)


def _values(layer: nn.Module, name: str) -> Any:
    """The values of a parameter, which may be parametrized; None if there is none."""
    if name not in layer._parameters and not parametrize.is_parametrized(layer, name):
        computed = described("a tensor that is computed before each call")
        raise ArgumentTypeError(name, "a parameter", computed)
    with torch.enable_grad():  # for its ``requires_grad``
        return getattr(layer, name)


def _copy_of(layer: Layer) -> Layer:
    """Copy everything but the weights, and what computes them, which has a class of its own."""
    kind: Any = type(layer)
    if parametrize.is_parametrized(layer):
        (kind,) = kind.__bases__
    copy: Layer = kind.__new__(kind)
    nn.Module.__init__(copy)
    weights = {*layer._parameter_shapes(), "parametrizations"}
    rest = {
        name: {key: value for key, value in layer.__dict__[name].items() if key not in weights}
        for name in ("_parameters", "_modules")
    }
    copy.__dict__.update(deepcopy(layer.__dict__ | rest))
    return copy


def _put(layer: nn.Module, name: str, value: Tensor, like: Tensor) -> None:
    own = value.detach().to(like.dtype).clone(memory_format=torch.contiguous_format)
    layer.register_parameter(name, nn.Parameter(own, like.requires_grad))
