"""Convert weights of JAX's convolutions and batch normalisations to those of layers, and back."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.untying import require_same, tolerance_of

__all__ = ["as_adjoint", "same_everywhere", "scale_and_shift", "scaled", "shifted"]


def same_everywhere(name: str, weights: jax.Array, axes: int, tolerance: float | None) -> jax.Array:
    """The weights that all positions have, or with *tolerance* None their mean over positions.

    Parameters
    ----------
    name : str
        Name of the parameter, for the error.
    weights : array
        With *axes* position axes first.

    Raises
    ------
    ArgumentError
        If weights differ by more than *tolerance* between positions.
    """
    over = tuple(range(axes))
    first = weights[(0,) * axes]
    apart = float(jnp.abs(weights - first).max())
    require_same(name, apart, tolerance_of(tolerance))
    # The mean of equal numbers could be rounded.
    return weights.mean(over) if apart else first


def as_adjoint(kernel: jax.Array, groups: int) -> jax.Array:
    """The kernel of a transposed convolution as the kernel of the operation it is the adjoint of.

    JAX slides the kernel over the dilated input: ``(*kernel_size, in // groups, out)``. The adjoint
    reverses the window: ``(*kernel_size, out // groups, in)``. Twice gives the same kernel again.
    """
    axes = kernel.ndim - 2
    taps, (inputs, filters) = kernel.shape[:axes], kernel.shape[axes:]
    turned = jnp.flip(kernel, range(axes)).reshape(*taps, inputs, groups, filters // groups)
    return jnp.moveaxis(turned, -1, axes).swapaxes(-1, -2).reshape(
        *taps, filters // groups, groups * inputs
    )  # fmt: skip


def scale_and_shift(
    mean: jax.Array,
    variance: jax.Array,
    epsilon: float,
    weight: jax.Array | None,
    bias: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """What a batch normalisation multiplies by and then adds, in float32 or wider."""
    wide = jnp.promote_types(variance.dtype, jnp.float32)
    scale = jax.lax.rsqrt(variance.astype(wide) + epsilon)
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias


def scaled(kernel: jax.Array, scale: jax.Array, spec: LocalConvSpec, transposed: bool) -> jax.Array:
    """A kernel whose outputs are *scale* times as large, channel by channel.

    Parameters
    ----------
    kernel : array
        ``(..., in_channels // groups, filters)`` of *spec*.
    scale : array
        One number for each filter; for a *transposed* operation, for each of ``in_channels``.
    """
    if transposed:
        groups = spec.groups  # the channels of a filter are those of its own group
        scale = jnp.repeat(scale.reshape(groups, -1).T, spec.filters // groups, axis=1)
    return (kernel * scale).astype(kernel.dtype)


def shifted(bias: jax.Array, scale: jax.Array, shift: jax.Array) -> jax.Array:
    """A bias of outputs that are *scale* times as large and *shift* more."""
    return (bias * scale + shift).astype(bias.dtype)
