"""Equinox: `LocallyConnected1d`, `2d` and `3d`, in the idiom of `equinox.nn.Conv2d`."""

from __future__ import annotations

from dataclasses import field
from math import sqrt
from typing import Any

import jax
import jax.numpy as jnp

import lcmulti
from lcmulti.errors import MissingExtraError
from lcmulti.geometry.arguments import choice, integer, per_axis
from lcmulti.geometry.padding import PADDING_MODES
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti_jax import base

try:
    import equinox as eqx
except ImportError as error:
    raise MissingExtraError(
        "lcmulti_jax.equinox needs Equinox; install it with: pip install 'lcmulti[equinox]'"
    ) from error

__all__ = ["LocallyConnected", "LocallyConnected1d", "LocallyConnected2d", "LocallyConnected3d"]


class LocallyConnected(eqx.Module):
    """A convolution whose weights differ at every output position.

    Parameters
    ----------
    num_spatial_dims : int
        Not given to `LocallyConnected1d`, `2d` and `3d`.
    in_channels, out_channels : int
    kernel_size : int or sequence of int
    input_size : int or sequence of int
        Spatial size of what comes in: each position has weights, so it is part of the layer.
    stride, padding, dilation, groups, use_bias, padding_mode, dtype
        As in `equinox.nn.Conv`.
    shared_axes : sequence of int, default ()
        Spatial axes of the output along which the kernel is shared.
    rank : int, optional
        Low-rank weights: the kernel of a position is a sum of *rank* shared kernels times
        coefficients of its own (arXiv 2002.02959).
    implementation : str, default "auto"
    key : PRNG key
        Parameters are drawn as in `equinox.nn.Conv`, at every position anew.

    Attributes
    ----------
    weight : array or None
        ``(*output_size, *kernel_size, in_channels // groups, out_channels)``, lcmulti's layout.
        With a rank None, and instead ``basis`` ``(rank, 1.., *kernel_size, .., out_channels)`` and
        ``coefficients`` ``(*output_size, rank)``.
    bias : array or None
        ``(*output_size, out_channels)``.
    spec : LocalConvSpec

    Raises
    ------
    ArgumentError
        For an argument that cannot be; at call time (`ShapeError`) for a sample of another shape.
    """

    weight: Any
    basis: Any
    coefficients: Any
    bias: Any
    spec: LocalConvSpec = field(metadata={"static": True})
    rank: int | None = field(metadata={"static": True})
    implementation: str = field(metadata={"static": True})

    def __init__(
        self,
        num_spatial_dims: int,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        input_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        use_bias: bool = True,
        padding_mode: str = "ZEROS",
        shared_axes: Any = (),
        rank: int | None = None,
        implementation: str = "auto",
        dtype: Any = None,
        *,
        key: Any,
    ) -> None:
        axes = num_spatial_dims
        size, kernel = (
            per_axis("input_size", input_size, axes), per_axis("kernel_size", kernel_size, axes)
        )  # fmt: skip
        steps, taps = per_axis("stride", stride, axes), per_axis("dilation", dilation, axes)
        pads, _ = base.normalised_padding(padding, size, kernel, steps, taps)
        self.spec = spec = LocalConvSpec(
            (integer("in_channels", in_channels, 1), *size),
            integer("out_channels", out_channels, 1),
            kernel,
            strides=steps,
            padding=pads,
            padding_mode=choice("padding_mode", padding_mode, PADDING_MODES),
            dilation=taps,
            groups=groups,
            data_format="channels_first",
            shared_axes=shared_axes,
        )
        self.rank = None if rank is None else integer("rank", rank, 1)
        self.implementation = implementation
        dtype = jnp.zeros(()).dtype if dtype is None else dtype  # float64 in JAX's 64-bit mode
        limit = 1 / sqrt(spec.terms)
        keys = jax.random.split(key, 3)

        def draw(key: Any, shape: tuple[int, ...], limit: float = limit) -> Any:
            if not jnp.issubdtype(dtype, jnp.complexfloating):
                return jax.random.uniform(key, shape, dtype, -limit, limit)
            parts = jax.random.uniform(key, (2, *shape), jnp.finfo(dtype).dtype, -limit, limit)
            return jax.lax.complex(*parts)

        shape = spec.kernel_shape
        full = self.rank is None
        self.weight = draw(keys[0], shape) if full else None
        self.basis = None if full else draw(keys[0], (self.rank, *(1,) * axes, *shape[axes:]))
        self.coefficients = (
            None if full else draw(keys[2], (*shape[:axes], self.rank), sqrt(3 / self.rank))
        )
        self.bias = draw(keys[1], spec.bias_shape) if use_bias else None

    def __call__(self, x: Any, *, key: Any = None) -> Any:
        """Apply the layer to one sample; `jax.vmap` applies it to a batch.

        Parameters
        ----------
        x : array
            ``(in_channels, *input_size)``.
        key : ignored
            For use in `equinox.nn.Sequential`.

        Returns
        -------
        array
            ``(out_channels, *output_size)``.
        """
        spec = self.spec
        shape = tuple(x.shape)
        advice = "it takes one sample, and jax.vmap(layer) a batch"
        if len(shape) == spec.ndim + 1:
            rebuild = f"in_channels={shape[0]}, input_size={shape[1:]}"
            advice = f"for these build a layer with {rebuild}"
        base.checked(shape, spec.input_shape, advice)
        arguments = {
            "strides": spec.strides,
            "padding": spec.padding,
            "padding_mode": spec.padding_mode,
            "dilation": spec.dilation,
            "groups": spec.groups,
            "data_format": spec.data_format,
            "implementation": self.implementation,
        }
        if self.rank is None:
            return lcmulti.local_conv(x[None], self.weight, self.bias, **arguments)[0]
        return lcmulti.local_conv_low_rank(
            x[None], self.basis, self.coefficients, self.bias, **arguments
        )[0]

    def kernel(self) -> Any:
        """The weights of every position, ``spec.kernel_shape``, whether of full rank or not."""
        if self.rank is None:
            return self.weight
        return lcmulti.low_rank_kernel(self.basis, self.coefficients)

    def share(self, axes: Any = None) -> LocallyConnected:
        """A layer whose weights (with a rank, coefficients) are the mean over positions.

        Parameters
        ----------
        axes : tuple of int, optional
            Spatial axes to average along; None takes all.
        """
        over = base.share(axes, self.spec)
        names = ["weight" if self.rank is None else "coefficients"]
        names += [] if self.bias is None else ["bias"]
        return eqx.tree_at(
            lambda layer: [getattr(layer, name) for name in names],
            self,
            [base.shared_mean(getattr(self, name), over) for name in names],
        )


class LocallyConnected1d(LocallyConnected):  # noqa: D101 - its base's
    __doc__ = LocallyConnected.__doc__

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(1, *args, **kwargs)


class LocallyConnected2d(LocallyConnected):  # noqa: D101 - its base's
    __doc__ = LocallyConnected.__doc__

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(2, *args, **kwargs)


class LocallyConnected3d(LocallyConnected):  # noqa: D101 - its base's
    __doc__ = LocallyConnected.__doc__

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(3, *args, **kwargs)
