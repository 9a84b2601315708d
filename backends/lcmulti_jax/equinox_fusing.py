"""Equinox: fuse a batch normalisation into the layer before it."""

from __future__ import annotations

from typing import TypeVar

import equinox as eqx
import jax.numpy as jnp

from lcmulti.errors import ArgumentError, ArgumentTypeError, described
from lcmulti.geometry.transposed import bias_shape_of
from lcmulti_jax.conversion import scale_and_shift
from lcmulti_jax.equinox_layers import LocallyConnected
from lcmulti_jax.equinox_transposed import LocallyConnectedTranspose

__all__ = ["fuse_bn"]

AnyLayer = TypeVar("AnyLayer", LocallyConnected, LocallyConnectedTranspose)


def fuse_bn(layer: AnyLayer, bn: eqx.nn.BatchNorm, state: eqx.nn.State) -> AnyLayer:
    """One layer that computes *layer* followed by *bn*, in inference.

    Parameters
    ----------
    layer : LocallyConnected or LocallyConnectedTranspose
        With or without a bias, and possibly low-rank. It is not changed.
    bn : equinox.nn.BatchNorm
    state : equinox.nn.State
        The state with the running statistics of *bn*.

    Returns
    -------
    A layer of the same kind, with a bias.

    Raises
    ------
    ArgumentError
        If *bn* has another number of channels, or if one of them computes something of its own in
        ``__call__`` (an activation, say).
    """
    if not isinstance(bn, eqx.nn.BatchNorm):
        raise ArgumentTypeError("bn", "an equinox.nn.BatchNorm", bn)
    if bn.input_size != layer.out_channels:
        raise ArgumentError("bn", f"{layer.out_channels} channels, as layer has", bn.input_size)
    transposed = isinstance(layer, LocallyConnectedTranspose)
    kind = LocallyConnectedTranspose if transposed else LocallyConnected
    for argument, module, plain in (("layer", layer, kind), ("bn", bn, eqx.nn.BatchNorm)):
        if type(module).__call__ is not plain.__call__:
            own = described(f"a {type(module).__name__}, which computes something of its own")
            raise ArgumentError(argument, "a module that is called as its kind is", own)
    average = bn.state_index if hasattr(bn, "state_index") else bn.ema_state_index  # Equinox 0.11
    if average is not None:
        mean, variance = state.get(average)
    else:
        assert bn.batch_state_index is not None
        assert bn.batch_counter is not None
        mean, variance = state.get(bn.batch_state_index)
        count = state.get(bn.batch_counter)
        seen = jnp.where(count == 0, 1, 1 - bn.momentum**count)
        mean, variance = mean / seen, variance / seen
    scale, shift = scale_and_shift(mean, variance, bn.eps, bn.weight, bn.bias)
    bias_shape = bias_shape_of(layer.spec) if transposed else layer.spec.bias_shape
    return layer._fused(scale, shift, bias_shape, transposed)
