"""Equinox: `LocallyConnectedTranspose`, and `LocallyConnectedTranspose1d`, `2d` and `3d`."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp

import lcmulti
from lcmulti.errors import ArgumentError
from lcmulti.geometry.arguments import integer, per_axis
from lcmulti.geometry.shapes import window_extent
from lcmulti.geometry.transposed import bias_shape_of, output_padding_of, transposed_arguments
from lcmulti_jax import base
from lcmulti_jax.conversion import as_adjoint
from lcmulti_jax.equinox_base import (
    WORDS,
    Ints,
    Layer,
    Padding,
    axes_of,
    convolution,
    weighted,
)

__all__ = [
    "LocallyConnectedTranspose",
    "LocallyConnectedTranspose1d",
    "LocallyConnectedTranspose2d",
    "LocallyConnectedTranspose3d",
]


class LocallyConnectedTranspose(Layer):
    """A transposed convolution whose weights differ at every input position.

    It is the exact adjoint of the `LocallyConnected` that has the same arguments, and outputs of
    size *input_size*.

    Parameters
    ----------
    num_spatial_dims : int
        `LocallyConnectedTranspose1d`, `2d` and `3d` do not have this argument.
    in_channels, out_channels, kernel_size, input_size, stride
        As in `LocallyConnected`; *input_size* is that of this layer.
    output_padding : int or sequence of int, default 0
        As in `equinox.nn.ConvTranspose`: it makes the output longer, and is less than the stride.
        With padding ``"SAME"`` it makes the output shorter.
    padding, dilation, groups, use_bias, dtype
        As in `equinox.nn.ConvTranspose`; they describe the operation this is the adjoint of.
    shared_axes, rank, implementation, key
        As in `LocallyConnected`.

    Attributes
    ----------
    weight : array or None
        ``(*input_size, *kernel_size, out_channels // groups, in_channels)``.
    bias : array or None
        ``(*output_size, out_channels)``.
    spec : LocalConvSpec
        The geometry of the operation this is the adjoint of.

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
        output_padding: Ints = 0,
        padding: Padding = 0,
        dilation: Ints = 1,
        groups: int = 1,
        use_bias: bool = True,
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
            more = per_axis("output_padding", output_padding, axes, minimum=0)
            pads, more = _of_adjoint(padding, kernel, steps, taps, more)
            self.spec = lcmulti.transposed_spec(
                (integer("in_channels", in_channels, 1), *size),
                integer("out_channels", out_channels, 1),
                kernel,
                strides=steps,
                padding=pads,
                output_padding=more,
                dilation=taps,
                groups=groups,
                data_format="channels_first",
                shared_axes=shared_axes,
            )
        self.implementation = implementation
        bias_shape = bias_shape_of(self.spec) if use_bias else None
        # As `equinox.nn.ConvTranspose`, which counts the inputs of a group. Here they are filters.
        fan = prod(kernel) * (self.spec.filters // self.spec.groups)
        self._draw(rank, fan, bias_shape, dtype, key)

    @property
    def in_channels(self) -> int:
        """As in `equinox.nn.ConvTranspose`."""
        return self.spec.filters

    @property
    def out_channels(self) -> int:
        """As in `equinox.nn.ConvTranspose`."""
        return self.spec.in_channels

    @property
    def input_size(self) -> tuple[int, ...]:
        """Spatial size of the input."""
        return self.spec.output_size

    @property
    def output_padding(self) -> tuple[int, ...]:
        """As in `equinox.nn.ConvTranspose` with explicit padding."""
        return output_padding_of(self.spec)

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
        base.checked_sample(tuple(x.shape), self.spec.output_shape)
        y: jax.Array = lcmulti.local_conv_transpose(
            x[None], self.full_kernel(), self.bias, implementation=self.implementation,
            **transposed_arguments(self.spec),
        )  # fmt: skip
        return y[0]

    @classmethod
    def from_conv(
        cls,
        conv: eqx.nn.ConvTranspose,
        input_size: Ints,
        *,
        shared_axes: Sequence[int] = (),
        implementation: str = "auto",
    ) -> Self:
        """A layer that computes what *conv* does; see `LocallyConnected.from_conv`.

        Raises
        ------
        ArgumentError
            If *conv* is another module, has another number of axes, or pads with other than zeros.
        """
        axes = axes_of(cls._axes, conv, eqx.nn.ConvTranspose)
        if conv.padding_mode != "ZEROS":
            raise ArgumentError("conv", "padding_mode 'ZEROS'", conv.padding_mode)
        make: Any = cls
        layer: Self = make(
            *axes, conv.in_channels, conv.out_channels, conv.kernel_size, input_size, conv.stride,
            conv.output_padding, conv.padding, conv.dilation, conv.groups, conv.use_bias,
            shared_axes, None, implementation, conv.weight.dtype, key=jax.random.key(0),
        )  # fmt: skip
        kernel = as_adjoint(jnp.moveaxis(conv.weight, (0, 1), (-1, -2)), conv.groups)
        return layer._spread(kernel, conv.bias)

    def to_conv(self, tolerance: float | None = 0.0) -> eqx.nn.ConvTranspose:
        """The transposed convolution equal to this layer; see `LocallyConnected.to_conv`."""
        kernel, bias = self._everywhere(tolerance)
        conv = convolution(
            "ConvTranspose", self, self.in_channels, self.out_channels, kernel.dtype,
            output_padding=self.output_padding,
        )  # fmt: skip
        turned = as_adjoint(kernel, self.groups)
        found: eqx.nn.ConvTranspose = weighted(conv, jnp.moveaxis(turned, (-1, -2), (0, 1)), bias)
        return found


class LocallyConnectedTranspose1d(LocallyConnectedTranspose):  # noqa: D101 - its base's
    __doc__ = LocallyConnectedTranspose.__doc__
    _axes: ClassVar[int | None] = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        input_size: Ints,
        stride: Ints = 1,
        output_padding: Ints = 0,
        padding: Padding = 0,
        dilation: Ints = 1,
        groups: int = 1,
        use_bias: bool = True,
        shared_axes: Sequence[int] = (),
        rank: int | None = None,
        implementation: str = "auto",
        dtype: Any = None,
        *,
        key: jax.Array,
    ) -> None:
        super().__init__(
            1, in_channels, out_channels, kernel_size, input_size, stride, output_padding,
            padding, dilation, groups, use_bias,
            shared_axes, rank, implementation, dtype, key=key,
        )  # fmt: skip


class LocallyConnectedTranspose2d(LocallyConnectedTranspose):  # noqa: D101 - its base's
    __doc__ = LocallyConnectedTranspose.__doc__
    _axes: ClassVar[int | None] = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        input_size: Ints,
        stride: Ints = 1,
        output_padding: Ints = 0,
        padding: Padding = 0,
        dilation: Ints = 1,
        groups: int = 1,
        use_bias: bool = True,
        shared_axes: Sequence[int] = (),
        rank: int | None = None,
        implementation: str = "auto",
        dtype: Any = None,
        *,
        key: jax.Array,
    ) -> None:
        super().__init__(
            2, in_channels, out_channels, kernel_size, input_size, stride, output_padding,
            padding, dilation, groups, use_bias,
            shared_axes, rank, implementation, dtype, key=key,
        )  # fmt: skip


class LocallyConnectedTranspose3d(LocallyConnectedTranspose):  # noqa: D101 - its base's
    __doc__ = LocallyConnectedTranspose.__doc__
    _axes: ClassVar[int | None] = 3

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        input_size: Ints,
        stride: Ints = 1,
        output_padding: Ints = 0,
        padding: Padding = 0,
        dilation: Ints = 1,
        groups: int = 1,
        use_bias: bool = True,
        shared_axes: Sequence[int] = (),
        rank: int | None = None,
        implementation: str = "auto",
        dtype: Any = None,
        *,
        key: jax.Array,
    ) -> None:
        super().__init__(
            3, in_channels, out_channels, kernel_size, input_size, stride, output_padding,
            padding, dilation, groups, use_bias,
            shared_axes, rank, implementation, dtype, key=key,
        )  # fmt: skip


def _of_adjoint(
    padding: Padding,
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    output_padding: tuple[int, ...],
) -> tuple[Any, tuple[int, ...]]:
    """Padding and output padding as numbers, from names as in `equinox.nn.ConvTranspose`."""
    name = padding.upper() if isinstance(padding, str) else ""
    if name not in ("SAME", "SAME_LOWER"):
        return padding, output_padding
    pairs, more = [], []
    for k, s, d, a in zip(kernel_size, stride, dilation, output_padding, strict=True):
        total = window_extent(k, d) - s + a
        low = (max(total, 0) + (name == "SAME_LOWER")) // 2
        pairs.append((low, max(total, 0) - low))
        more.append(max(-total, 0))
    return tuple(pairs), tuple(more)
