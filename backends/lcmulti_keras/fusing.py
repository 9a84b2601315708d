"""A batch normalisation that follows a layer, taken into the layer's weights."""

from __future__ import annotations

from typing import Any, TypeVar

import keras
import numpy as np
from keras import ops

from lcmulti.errors import ArgumentError, ArgumentTypeError, described
from lcmulti_keras.base import LocallyConnectedBase
from lcmulti_keras.layers import LocallyConnected
from lcmulti_keras.transposed import LocallyConnectedTranspose

__all__ = ["fuse_bn"]

NORMALISATION = keras.layers.BatchNormalization
Layer = TypeVar("Layer", bound=LocallyConnectedBase)


def fuse_bn(layer: Layer, bn: Any) -> Layer:
    """One layer that computes what *layer* and then *bn* do with moving averages.

    The weights of each filter are multiplied by
    ``s = bn.gamma / sqrt(bn.moving_variance + bn.epsilon)``, and the bias becomes
    ``(bias - bn.moving_mean) * s + bn.beta``.

    Parameters
    ----------
    layer : LocallyConnected1D, 2D, 3D or a transposed one
        It must be built and have no activation. It may have a bias or not, and may be low-rank.
    bn : keras.layers.BatchNormalization
        A normalisation over the output channels of *layer*, which is built.

    Returns
    -------
    A new layer of the same kind and name, built, with a bias. *layer* and *bn* are not changed.

    Raises
    ------
    ArgumentError
        If either is not built or computes something of its own in ``call``, *layer* has an
        activation, or they do not fit together.
    """
    if not isinstance(layer, LocallyConnectedBase):
        raise ArgumentTypeError("layer", "a locally connected layer", layer)
    if not isinstance(bn, NORMALISATION):
        raise ArgumentTypeError("bn", "a keras.layers.BatchNormalization", bn)
    _require_fitting(layer, bn)
    scale, shift = _scale_and_shift(bn)
    fused: Layer = type(layer).from_config(layer.get_config() | {"use_bias": True})
    fused.build((None, *layer._built_for))
    name = "kernel" if layer.rank is None else "basis"
    _assign(getattr(fused, name), _wide(getattr(layer, name)) * _along_filters(scale, layer))
    if layer.rank is not None:
        _assign(fused.coefficients, _wide(layer.coefficients))
    old = 0 if layer.bias is None else _wide(layer.bias)
    _assign(fused.bias, np.broadcast_to(old * scale + shift, layer._bias_shape()))
    return fused


def _require_fitting(layer: LocallyConnectedBase, bn: Any) -> None:
    transposed = isinstance(layer, LocallyConnectedTranspose)
    kind = LocallyConnectedTranspose if transposed else LocallyConnected
    for argument, each, plain in (("layer", layer, kind), ("bn", bn, NORMALISATION)):
        if not each.built:
            shown = described(f"{each.name}, which has seen no input")
            raise ArgumentError(argument, "a layer that is built", shown)
        if type(each).call is not plain.call:
            own = described(f"a {type(each).__name__}, which computes something of its own in call")
            raise ArgumentError(argument, "a layer with the call of its kind", own)
    if layer.activation is not keras.activations.linear:
        shown = described(f"activation={keras.activations.serialize(layer.activation)!r}")
        raise ArgumentError("layer", "no activation between it and bn", shown)
    axes = (1, -layer.ndim - 1) if layer.data_format == "channels_first" else (-1, layer.ndim + 1)
    if bn.axis not in axes:
        raise ArgumentError("bn", f"a normalisation over axis {axes[0]}, the channels", bn.axis)
    (features,) = bn.moving_mean.shape
    if features != layer.filters:
        raise ArgumentError("bn", f"{layer.filters} features, the filters of layer", features)


def _scale_and_shift(bn: Any) -> tuple[Any, Any]:
    scale = 1 / np.sqrt(_wide(bn.moving_variance) + bn.epsilon)
    if bn.scale:
        scale = scale * _wide(bn.gamma)
    shift = -_wide(bn.moving_mean) * scale
    return scale, shift + _wide(bn.beta) if bn.center else shift


def _along_filters(scale: Any, layer: LocallyConnectedBase) -> Any:
    """To be multiplied with the last two axes of a kernel."""
    if not isinstance(layer, LocallyConnectedTranspose):
        return scale
    # What comes out are the channels of the kernel, of the group that a filter is in.
    groups = layer.groups
    return np.repeat(scale.reshape(groups, -1).T, layer.spec.filters // groups, 1)


def _wide(variable: Any) -> Any:
    return np.asarray(ops.convert_to_numpy(variable), np.float64)


def _assign(variable: Any, values: Any) -> None:
    variable.assign(ops.cast(values, variable.dtype))
