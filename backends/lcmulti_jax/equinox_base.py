"""The base of the layers for Equinox: parameters, attributes and averages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from math import sqrt
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp

import lcmulti
from lcmulti.errors import ArgumentTypeError, described
from lcmulti.geometry.arguments import integer
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti_jax import base
from lcmulti_jax.conversion import same_everywhere, scaled, shifted

__all__ = ["Ints", "Layer", "Padding", "WORDS", "axes_of", "convolution", "weighted"]

Ints = int | Sequence[int]
Padding = str | int | Sequence[int] | Sequence[tuple[int, int]]

WORDS = {"filters": "out_channels", "strides": "stride"}
"""Equinox' names of arguments of `LocalConvSpec`, for errors."""


class Layer(eqx.Module):
    """A module with parameters and their geometry."""

    _axes: ClassVar[int | None] = None

    weight: jax.Array | None
    basis: jax.Array | None
    coefficients: jax.Array | None
    bias: jax.Array | None
    spec: LocalConvSpec = field(metadata={"static": True})
    rank: int | None = field(metadata={"static": True})
    implementation: str = field(metadata={"static": True})

    def _draw(
        self,
        rank: int | None,
        fan: int,
        bias_shape: tuple[int, ...] | None,
        dtype: Any,
        key: jax.Array,
    ) -> None:
        """Draw parameters as `equinox.nn.Conv` does, independently at every position."""
        spec = self.spec
        self.rank = None if rank is None else integer("rank", rank, 1)
        dtype = jnp.zeros(()).dtype if dtype is None else dtype  # float64 in JAX's 64-bit mode
        limit = 1 / sqrt(fan)
        keys = jax.random.split(key, 3)

        def draw(key: jax.Array, shape: tuple[int, ...], limit: float = limit) -> jax.Array:
            if not jnp.issubdtype(dtype, jnp.complexfloating):
                return jax.random.uniform(key, shape, dtype, -limit, limit)
            parts = jax.random.uniform(key, (2, *shape), jnp.finfo(dtype).dtype, -limit, limit)
            return jax.lax.complex(*parts)

        shape, axes = spec.kernel_shape, spec.ndim
        if self.rank is None:
            self.weight, self.basis, self.coefficients = draw(keys[0], shape), None, None
        else:
            self.weight = None
            self.basis = draw(keys[0], (self.rank, *(1,) * axes, *shape[axes:]))
            mixed = (*shape[:axes], self.rank)
            self.coefficients = draw(keys[2], mixed, sqrt(3 / self.rank))
        self.bias = None if bias_shape is None else draw(keys[1], bias_shape)

    @property
    def num_spatial_dims(self) -> int:
        """As in `equinox.nn.Conv`."""
        return self.spec.ndim

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """As in `equinox.nn.Conv`."""
        return self.spec.kernel_size

    @property
    def stride(self) -> tuple[int, ...]:
        """As in `equinox.nn.Conv`."""
        return self.spec.strides

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """As in `equinox.nn.Conv`, in pairs."""
        return self.spec.padding

    @property
    def padding_mode(self) -> str:
        """As in `equinox.nn.Conv`."""
        return self.spec.padding_mode.upper()

    @property
    def dilation(self) -> tuple[int, ...]:
        """As in `equinox.nn.Conv`."""
        return self.spec.dilation

    @property
    def groups(self) -> int:
        """As in `equinox.nn.Conv`."""
        return self.spec.groups

    @property
    def use_bias(self) -> bool:
        """As in `equinox.nn.Conv`."""
        return self.bias is not None

    @property
    def shared_axes(self) -> tuple[int, ...]:
        """Spatial axes along which the kernel is shared."""
        return self.spec.shared_axes

    def full_kernel(self) -> jax.Array:
        """The weights of every position, ``spec.kernel_shape``; also of a low-rank layer."""
        if self.weight is not None:
            return self.weight
        kernel: jax.Array = lcmulti.low_rank_kernel(self.basis, self.coefficients)
        return kernel

    def kernel(self) -> jax.Array:
        """The same as `full_kernel`."""
        return self.full_kernel()

    def share(self, axes: Sequence[int] | None = None) -> Self:
        """A layer whose weights (with a rank, its coefficients) are their mean over positions.

        Parameters
        ----------
        axes : tuple of int, optional
            Spatial axes to average along; None takes all.
        """
        over = self.spec.axes_to_average(axes)
        changed = {
            name: base.shared_mean(getattr(self, name), over)
            for name in ("weight" if self.rank is None else "coefficients", "bias")
            if getattr(self, name) is not None
        }
        return self._with(**changed)

    def _spread(self, kernel: jax.Array, bias: jax.Array | None) -> Self:
        """The same layer, with the weights of a convolution at every position."""
        assert self.weight is not None
        changed = {"weight": jnp.broadcast_to(kernel, self.weight.shape)}
        if self.bias is not None and bias is not None:
            changed["bias"] = jnp.broadcast_to(bias.reshape(-1), self.bias.shape)
        return self._with(**changed)

    def _everywhere(self, tolerance: float | None) -> tuple[jax.Array, jax.Array | None]:
        """Kernel and bias of all positions; raise if they differ by more than *tolerance*."""
        axes = self.spec.ndim
        kernel = same_everywhere("weight", self.full_kernel(), axes, tolerance)
        bias = self.bias
        return kernel, None if bias is None else same_everywhere("bias", bias, axes, tolerance)

    def _with(self, **parameters: jax.Array | None) -> Self:
        """The same layer with other parameters."""
        layer: Self = eqx.tree_at(
            lambda layer: [getattr(layer, name) for name in parameters],
            self,
            [*parameters.values()],
            is_leaf=lambda each: each is None,
        )
        return layer

    def _fused(
        self, scale: jax.Array, shift: jax.Array, bias_shape: tuple[int, ...], transposed: bool
    ) -> Self:
        """The same layer, with its outputs multiplied by *scale* and increased by *shift*."""
        name = "weight" if self.rank is None else "basis"
        kernel = getattr(self, name)
        bias = self.bias
        if bias is None:
            bias = jnp.zeros(bias_shape, kernel.dtype)
        changed = {
            name: scaled(kernel, scale, self.spec, transposed),
            "bias": shifted(bias, scale, shift),
        }
        return self._with(**changed)


def axes_of(own: int | None, conv: Any, kind: type) -> tuple[int, ...]:
    """The argument ``num_spatial_dims`` of a layer; empty for a class with its *own* number.

    Raises
    ------
    ArgumentTypeError
        If *conv* is not a convolution of *kind*, or has another number of axes.
    """
    name = f"{kind.__name__}{'' if own is None else f'{own}d'}"
    if not isinstance(conv, kind):
        raise ArgumentTypeError("conv", f"an equinox.nn.{name}", conv)
    axes: int = conv.num_spatial_dims  # type: ignore[attr-defined]
    if own not in (None, axes):
        raise ArgumentTypeError("conv", f"an equinox.nn.{name}", described(f"one of {axes} axes"))
    return (axes,) if own is None else ()


def convolution(
    name: str, layer: Layer, in_channels: int, out_channels: int, dtype: Any, **more: Any
) -> Any:
    """An Equinox convolution with the geometry of a layer."""
    axes = layer.num_spatial_dims
    leading: tuple[int, ...] = () if axes < 4 else (axes,)
    make = getattr(eqx.nn, f"{name}{axes}d" if axes < 4 else name)
    return make(
        *leading, in_channels, out_channels, layer.kernel_size, stride=layer.stride,
        padding=layer.padding, dilation=layer.dilation, groups=layer.groups,
        use_bias=layer.use_bias, dtype=dtype, key=jax.random.key(0), **more,
    )  # fmt: skip


def weighted(conv: Any, weight: jax.Array, bias: jax.Array | None) -> Any:
    """A convolution with other weights."""
    found = eqx.tree_at(lambda conv: conv.weight, conv, weight)
    if bias is not None:
        shaped = bias.reshape(-1, *(1,) * (weight.ndim - 2))
        found = eqx.tree_at(lambda conv: conv.bias, found, shaped)
    return found
