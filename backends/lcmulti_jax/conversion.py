"""Convert weights of JAX's convolutions and batch normalisations to those of layers, and back."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcmulti.errors import ArgumentError, described
from lcmulti.geometry.spec import LocalConvSpec

__all__ = ["as_adjoint", "same_everywhere", "scaled", "shifted"]


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
    apart = jnp.abs(weights - first).max()
    if tolerance is not None and not apart <= tolerance:
        expected = f"the same at every position within {tolerance}"
        raise ArgumentError(
            name,
            f"{expected} (to_conv(tolerance=None) takes the mean)",
            described(f"weights that differ by up to {float(apart):.3g} between positions"),
        )
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


def scaled(kernel: jax.Array, scale: jax.Array, spec: LocalConvSpec, transposed: bool) -> jax.Array:
    """A kernel whose outputs are *scale* times as large, channel by channel.

    Parameters
    ----------
    kernel : array
        ``(..., in_channels // groups, filters)`` of *spec*.
    scale : array
        One number for each filter; for a *transposed* operation, for each of ``in_channels``.
    """
    scale = scale.astype(kernel.dtype)
    if not transposed:
        return kernel * scale
    groups = spec.groups  # the channels of a filter are those of its own group
    by_filter = jnp.repeat(scale.reshape(groups, -1).T, spec.filters // groups, axis=1)
    return kernel * by_filter


def shifted(bias: jax.Array, scale: jax.Array, shift: jax.Array) -> jax.Array:
    """A bias of outputs that are *scale* times as large and *shift* more."""
    return (bias * scale + shift).astype(bias.dtype)
