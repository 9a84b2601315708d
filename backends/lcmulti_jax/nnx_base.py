"""The base of the layers for Flax NNX: parameters and batch dimensions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod, sqrt
from types import MappingProxyType
from typing import Any, Self, TypeVar

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

import lcmulti
from lcmulti.errors import ArgumentError, described
from lcmulti.geometry.arguments import integer
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti_jax import base
from lcmulti_jax.compat import mesh_in_use
from lcmulti_jax.conversion import same_everywhere
from lcmulti_jax.nnx_compat import nothing, put

NONE: Mapping[str, Any] = MappingProxyType({})
WORDS = {"groups": "feature_group_count", "dilation": "kernel_dilation"}
"""Flax' names of arguments of `LocalConvSpec`, for errors."""

default_kernel_init = nnx.initializers.lecun_normal()
default_bias_init = nnx.initializers.zeros_init()

Ints = int | Sequence[int]
Padding = str | int | Sequence[int] | Sequence[tuple[int, int]]
Initializer = Callable[..., Any]


class Layer(nnx.Module):
    """A module with parameters and their geometry."""

    spec: LocalConvSpec
    kernel: nnx.Param[Array]
    basis: nnx.Param[Array]
    coefficients: nnx.Param[Array]
    bias: nnx.Param[Array] | None
    rank: int | None
    implementation: str
    dtype: Any
    param_dtype: Any
    precision: Any

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """As in `flax.nnx.Conv`."""
        return self.spec.kernel_size

    @property
    def strides(self) -> tuple[int, ...]:
        """As in `flax.nnx.Conv`."""
        return self.spec.strides

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """As in `flax.nnx.Conv`, in pairs."""
        return self.spec.padding

    @property
    def kernel_dilation(self) -> tuple[int, ...]:
        """As in `flax.nnx.Conv`."""
        return self.spec.dilation

    @property
    def feature_group_count(self) -> int:
        """As in `flax.nnx.Conv`."""
        return self.spec.groups

    @property
    def use_bias(self) -> bool:
        """As in `flax.nnx.Conv`."""
        return self.bias is not None

    @property
    def shared_axes(self) -> tuple[int, ...]:
        """Spatial axes along which the kernel is shared."""
        return self.spec.shared_axes

    def _keep(
        self, dtype: Any, param_dtype: Any, precision: Any, rank: Any, implementation: str
    ) -> None:
        self.dtype, self.param_dtype, self.precision = dtype, param_dtype, precision
        self.rank = None if rank is None else integer("rank", rank, 1)
        self.implementation = implementation

    def _make_parameters(
        self,
        bias_shape: tuple[int, ...] | None,
        kernel_init: Any,
        bias_init: Any,
        rngs: nnx.Rngs,
        kernel_metadata: Mapping[str, Any],
        bias_metadata: Mapping[str, Any],
    ) -> None:
        ndim, positions = self.spec.ndim, self.spec.positions_shape
        taps = self.spec.kernel_shape[ndim:]
        draw = _plain(kernel_init, self.param_dtype)
        if self.rank is None:
            sharding = _sharding_in(kernel_metadata, positions)
            kernel = base.at_every_position(draw, rngs.params(), positions, taps, sharding)
            kernel_metadata = {**draw.metadata, **kernel_metadata}
            self.kernel = nnx.Param(kernel, **kernel_metadata)
        else:
            basis = base.at_every_position(draw, rngs.params(), (self.rank,), taps)
            basis = basis.reshape(self.rank, *(1,) * ndim, *taps)
            self.basis = nnx.Param(basis)
            normal = nnx.initializers.normal(1 / sqrt(self.rank))
            mixed = normal(rngs.params(), (*positions, self.rank), self.param_dtype)
            self.coefficients = nnx.Param(mixed, **kernel_metadata)
        if bias_shape is None:
            self.bias = nothing()
        else:
            bias = bias_init(rngs.params(), bias_shape, self.param_dtype)
            self.bias = nnx.Param(bias, **bias_metadata)

    def full_kernel(self) -> Array:
        """The weights of every position, ``spec.kernel_shape``; also of a low-rank layer."""
        if self.rank is None:
            return self.kernel[...]
        kernel: Array = lcmulti.low_rank_kernel(self.basis[...], self.coefficients[...])
        return kernel

    def share_(self, axes: Sequence[int] | None = None) -> None:
        """Replace weights (with a rank, coefficients) by their mean over positions, in place.

        Parameters
        ----------
        axes : tuple of int, optional
            Spatial axes to average along; None takes all.
        """
        over = self.spec.axes_to_average(axes)
        for each in (self.kernel if self.rank is None else self.coefficients, self.bias):
            if each is not None:
                put(each, base.shared_mean(each[...], over))

    def _spread(self, kernel: Array, bias: Array) -> Self:
        """Set the weights of every position to those of a convolution."""
        put(self.kernel, jnp.broadcast_to(kernel, self.kernel.shape))
        if self.bias is not None and bias is not None:
            put(self.bias, jnp.broadcast_to(bias[...], self.bias.shape))
        return self

    def _everywhere(self, tolerance: float | None) -> tuple[Array, Array | None]:
        """Kernel and bias of all positions; raise if they differ by more than *tolerance*."""
        axes = self.spec.ndim
        kernel = same_everywhere("kernel", self.full_kernel(), axes, tolerance)
        if self.bias is None:
            return kernel, None
        return kernel, same_everywhere("bias", self.bias[...], axes, tolerance)

    def _promoted(self, inputs: Any, *weights: Any) -> tuple[Any, ...]:
        return nnx.nn.dtypes.promote_dtype((inputs, *weights), dtype=self.dtype)

    def _on_batches(self, run: Callable[[Any], Any], inputs: Any, sample: tuple[int, ...]) -> Any:
        """Run with all batch dimensions merged, or with a batch of one if there are none."""
        ndim = self.spec.ndim + 1
        shape, advice = inputs.shape[-ndim:], "it takes (*batch, *input_size, in_features)"
        if len(shape) == ndim:
            rebuild = f"in_features={shape[-1]}, input_size={shape[:-1]}"
            advice = f"for these build a layer with {rebuild}"
            if shape == (sample[-1], *sample[:-1]):
                advice = f"these are channels first; jnp.moveaxis(x, {-ndim}, -1) puts them last"
        base.checked(shape, sample, advice)
        batch = inputs.shape[:-ndim]
        if len(batch) == 1:
            return run(inputs)
        y = run(inputs.reshape(-1, *sample))
        return y.reshape(*batch, *y.shape[1:])


def _sharding_in(metadata: Mapping[str, Any], positions: tuple[int, ...]) -> NamedSharding | None:
    """The sharding that metadata asks for, in which a kernel is drawn; None if it asks for none.

    Raises
    ------
    ArgumentError
        If the number of devices does not divide the positions, which JAX requires.
    """
    names = metadata.get("out_sharding")
    mesh = mesh_in_use()
    if not names or mesh is None:
        return None
    known = {*mesh.axis_names}
    each = [(n,) if isinstance(n, str) else tuple(n or ()) for n in names]
    if any(name not in known for group in each for name in group):  # an error of Flax' own rules
        return None
    for axis, (n, group) in enumerate(zip(positions, each, strict=False)):
        parts = prod(mesh.shape[name] for name in group)
        if n % parts:
            raise ArgumentError(
                "kernel_metadata",
                f"devices that divide the {n} positions of axis {axis} "
                "(lcmulti_jax.sharded spreads any number)",
                described(f"{parts} devices along {group}"),
            )
    return NamedSharding(mesh, PartitionSpec(*names))


def blank(like: Any) -> dict[str, Any]:
    """Arguments of a layer or convolution that has the dtypes of another one, and zero weights."""
    return {
        "use_bias": like.bias is not None,
        "dtype": like.dtype,
        "param_dtype": like.param_dtype,
        "precision": like.precision,
        "kernel_init": nnx.initializers.zeros_init(),
        "rngs": nnx.Rngs(0),
    }


def masked(conv: nnx.Conv | nnx.ConvTranspose) -> Array:
    """The kernel of a convolution, with its mask applied."""
    kernel: Array = conv.kernel[...]
    return kernel if conv.mask is None else kernel * jnp.asarray(conv.mask)


Convolution = TypeVar("Convolution", nnx.Conv, nnx.ConvTranspose)


def weighted(conv: Convolution, kernel: Array, bias: Array | None) -> Convolution:
    """Set the weights of a convolution, and return it."""
    put(conv.kernel, kernel)
    if conv.bias is not None and bias is not None:
        put(conv.bias, bias)
    return conv


def per_flax_axis(value: Ints | None, axes: int) -> tuple[int, ...]:
    """One int for each axis; None means 1."""
    return tuple(value) if isinstance(value, Sequence) else (value or 1,) * axes


def pairs_of(padding: Any, axes: int) -> tuple[tuple[int, int], ...]:
    """Explicit padding of a Flax layer in pairs."""
    each = padding if isinstance(padding, Sequence) else (padding,) * axes
    return tuple((p, p) if isinstance(p, int) else tuple(p) for p in each)


class _plain:  # noqa: N801 - a function that remembers what it was told
    """An initialiser without the metadata that `nnx.with_partitioning` wraps its result in."""

    def __init__(self, init: Any, dtype: Any) -> None:
        self.init, self.dtype = init, dtype
        self.metadata: dict[str, Any] = {}

    def __call__(self, key: Any, shape: tuple[int, ...]) -> Any:
        drawn = self.init(key, shape, self.dtype)
        if isinstance(drawn, nnx.VariableMetadata):
            self.metadata = dict(drawn.metadata)
            return drawn.raw_value
        return drawn
