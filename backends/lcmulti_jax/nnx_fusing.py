"""Flax NNX: fuse a batch normalisation into the layer before it."""

from __future__ import annotations

from typing import TypeVar

import jax.numpy as jnp
from flax import nnx

from lcmulti.errors import ArgumentError, ArgumentTypeError, described
from lcmulti.geometry.transposed import bias_shape_of
from lcmulti_jax.conversion import scale_and_shift, scaled, shifted
from lcmulti_jax.nnx_compat import put
from lcmulti_jax.nnx_layers import LocallyConnected
from lcmulti_jax.nnx_transposed import LocallyConnectedTranspose

__all__ = ["fuse_bn"]

AnyLayer = TypeVar("AnyLayer", LocallyConnected, LocallyConnectedTranspose)


def fuse_bn(layer: AnyLayer, bn: nnx.BatchNorm) -> AnyLayer:
    """One layer that computes *layer* followed by *bn* with its running averages.

    Parameters
    ----------
    layer : LocallyConnected or LocallyConnectedTranspose
        With or without a bias, and possibly low-rank. It is not changed.
    bn : flax.nnx.BatchNorm
        A normalisation over the last axis.

    Returns
    -------
    A layer of the same kind, with a bias.

    Raises
    ------
    ArgumentError
        If *bn* is over another axis, or has another number of features, or if one of them computes
        something of its own in ``__call__`` (an activation, say).
    """
    if not isinstance(bn, nnx.BatchNorm):
        raise ArgumentTypeError("bn", "a flax.nnx.BatchNorm", bn)
    if bn.axis != -1:
        raise ArgumentError("bn", "a normalisation over axis -1", bn.axis)
    if bn.num_features != layer.out_features:
        raise ArgumentError("bn", f"{layer.out_features} features, as layer has", bn.num_features)
    transposed = isinstance(layer, LocallyConnectedTranspose)
    kind = LocallyConnectedTranspose if transposed else LocallyConnected
    for argument, module, plain in (("layer", layer, kind), ("bn", bn, nnx.BatchNorm)):
        if type(module).__call__ is not plain.__call__:
            own = described(f"a {type(module).__name__}, which computes something of its own")
            raise ArgumentError(argument, "a module that is called as its kind is", own)
    weight, offset = (None if each is None else each[...] for each in (bn.scale, bn.bias))
    scale, shift = scale_and_shift(bn.mean[...], bn.var[...], bn.epsilon, weight, offset)
    fused = nnx.clone(layer)
    kernel = fused.kernel if fused.rank is None else fused.basis
    bias_shape = bias_shape_of(layer.spec) if transposed else layer.spec.bias_shape
    bias = jnp.zeros(bias_shape, layer.param_dtype) if layer.bias is None else layer.bias[...]
    put(kernel, scaled(kernel[...], scale, layer.spec, transposed))
    if fused.bias is None:
        fused.bias = nnx.Param(shifted(bias, scale, shift))
    else:  # it may be a Param of another class, or be sharded
        put(fused.bias, shifted(bias, scale, shift))
    return fused
