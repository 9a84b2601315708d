"""Equinox: `LocallyConnected`, and `LocallyConnected1d`, `2d` and `3d`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp

import lcmulti
from lcmulti.geometry.arguments import choice, integer, per_axis
from lcmulti.geometry.padding import PADDING_MODES
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti_jax import base
from lcmulti_jax.equinox_base import (
    WORDS,
    Ints,
    Layer,
    Padding,
    axes_of,
    convolution,
    weighted,
)

__all__ = ["LocallyConnected", "LocallyConnected1d", "LocallyConnected2d", "LocallyConnected3d"]


class LocallyConnected(Layer):
    """A convolution whose weights differ at every output position.

    Parameters
    ----------
    num_spatial_dims : int
        `LocallyConnected1d`, `2d` and `3d` do not have this argument.
    in_channels, out_channels : int
    kernel_size : int or sequence of int
    input_size : int or sequence of int
        Spatial size of the input. The layer must know it, because each position has weights.
    stride, padding, dilation, groups, use_bias, padding_mode, dtype
        As in `equinox.nn.Conv`.
    shared_axes : sequence of int, default ()
        Spatial axes of the output along which the kernel is shared.
    rank : int, optional
        Low-rank weights: the kernel of a position is a sum of *rank* shared kernels times
        coefficients of its own (arXiv 2002.02959).
    implementation : str, default "auto"
    key : PRNG key
        Parameters are drawn as in `equinox.nn.Conv`, independently at every position.

    Attributes
    ----------
    weight : array or None
        ``(*output_size, *kernel_size, in_channels // groups, out_channels)``, lcmulti's layout.
        None with a rank, which has ``basis`` ``(rank, 1.., *kernel_size, .., out_channels)`` and
        ``coefficients`` ``(*output_size, rank)``.
    bias : array or None
        ``(*output_size, out_channels)``.
    spec : LocalConvSpec

    Raises
    ------
    ArgumentError
        For an argument that is not allowed; at call time (`ShapeError`) for a sample of another
        shape.
    """

    def __init__(
        self,
        num_spatial_dims: int,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        input_size: Ints,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
        groups: int = 1,
        use_bias: bool = True,
        padding_mode: str = "ZEROS",
        shared_axes: Sequence[int] = (),
        rank: int | None = None,
        implementation: str = "auto",
        dtype: Any = None,
        *,
        key: jax.Array,
    ) -> None:
        axes = num_spatial_dims
        with base.in_words(WORDS):
            size = per_axis("input_size", input_size, axes)
            kernel = per_axis("kernel_size", kernel_size, axes)
            steps, taps = per_axis("stride", stride, axes), per_axis("dilation", dilation, axes)
            pads, _ = base.normalised_padding(padding, size, kernel, steps, taps)
            self.spec = LocalConvSpec(
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
        self.implementation = implementation
        bias_shape = self.spec.bias_shape if use_bias else None
        self._draw(rank, self.spec.terms, bias_shape, dtype, key)

    @property
    def in_channels(self) -> int:
        """As in `equinox.nn.Conv`."""
        return self.spec.in_channels

    @property
    def out_channels(self) -> int:
        """As in `equinox.nn.Conv`."""
        return self.spec.filters

    @property
    def input_size(self) -> tuple[int, ...]:
        """Spatial size of the input."""
        return self.spec.input_size

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
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
        base.checked_sample(tuple(x.shape), spec.input_shape)
        arguments = spec.arguments() | {"implementation": self.implementation}
        if self.rank is None:
            y = lcmulti.local_conv(x[None], self.weight, self.bias, **arguments)
        else:
            y = lcmulti.local_conv_low_rank(
                x[None], self.basis, self.coefficients, self.bias, **arguments
            )
        result: jax.Array = y[0]
        return result

    @classmethod
    def from_conv(
        cls,
        conv: eqx.nn.Conv,
        input_size: Ints,
        *,
        shared_axes: Sequence[int] = (),
        implementation: str = "auto",
    ) -> Self:
        """A layer that computes what *conv* does; in training, its positions may become different.

        Parameters
        ----------
        conv : equinox.nn.Conv
        input_size : int or sequence of int
        shared_axes, implementation
            Arguments of the layer.

        Raises
        ------
        ArgumentTypeError
            If *conv* is another module, or has another number of axes.
        """
        make: Any = cls
        layer: Self = make(
            *axes_of(cls._axes, conv, eqx.nn.Conv),
            conv.in_channels, conv.out_channels, conv.kernel_size, input_size, conv.stride,
            conv.padding, conv.dilation, conv.groups, conv.use_bias, conv.padding_mode,
            shared_axes, None, implementation, conv.weight.dtype, key=jax.random.key(0),
        )  # fmt: skip
        kernel = jnp.moveaxis(conv.weight, (0, 1), (-1, -2))
        return layer._spread(kernel, conv.bias)

    def to_conv(self, tolerance: float | None = 0.0) -> eqx.nn.Conv:
        """The convolution equal to this layer, or with *tolerance* None the mean over positions.

        Parameters
        ----------
        tolerance : float or None, default 0
            Largest difference of a weight between two positions.

        Raises
        ------
        ArgumentError
            If weights differ more between positions. The message says by how much.
        """
        kernel, bias = self._everywhere(tolerance)
        conv = convolution(
            "Conv", self, self.in_channels, self.out_channels, kernel.dtype,
            padding_mode=self.padding_mode,
        )  # fmt: skip
        found: eqx.nn.Conv = weighted(conv, jnp.moveaxis(kernel, (-1, -2), (0, 1)), bias)
        return found


class LocallyConnected1d(LocallyConnected):  # noqa: D101 - its base's
    __doc__ = LocallyConnected.__doc__
    _axes: ClassVar[int | None] = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        input_size: Ints,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
        groups: int = 1,
        use_bias: bool = True,
        padding_mode: str = "ZEROS",
        shared_axes: Sequence[int] = (),
        rank: int | None = None,
        implementation: str = "auto",
        dtype: Any = None,
        *,
        key: jax.Array,
    ) -> None:
        super().__init__(
            1, in_channels, out_channels, kernel_size, input_size, stride, padding, dilation,
            groups, use_bias, padding_mode,
            shared_axes, rank, implementation, dtype, key=key,
        )  # fmt: skip


class LocallyConnected2d(LocallyConnected):  # noqa: D101 - its base's
    __doc__ = LocallyConnected.__doc__
    _axes: ClassVar[int | None] = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        input_size: Ints,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
        groups: int = 1,
        use_bias: bool = True,
        padding_mode: str = "ZEROS",
        shared_axes: Sequence[int] = (),
        rank: int | None = None,
        implementation: str = "auto",
        dtype: Any = None,
        *,
        key: jax.Array,
    ) -> None:
        super().__init__(
            2, in_channels, out_channels, kernel_size, input_size, stride, padding, dilation,
            groups, use_bias, padding_mode,
            shared_axes, rank, implementation, dtype, key=key,
        )  # fmt: skip


class LocallyConnected3d(LocallyConnected):  # noqa: D101 - its base's
    __doc__ = LocallyConnected.__doc__
    _axes: ClassVar[int | None] = 3

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        input_size: Ints,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
        groups: int = 1,
        use_bias: bool = True,
        padding_mode: str = "ZEROS",
        shared_axes: Sequence[int] = (),
        rank: int | None = None,
        implementation: str = "auto",
        dtype: Any = None,
        *,
        key: jax.Array,
    ) -> None:
        super().__init__(
            3, in_channels, out_channels, kernel_size, input_size, stride, padding, dilation,
            groups, use_bias, padding_mode,
            shared_axes, rank, implementation, dtype, key=key,
        )  # fmt: skip
