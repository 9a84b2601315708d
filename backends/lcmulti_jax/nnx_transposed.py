"""Flax NNX: `LocallyConnectedTranspose`, in the idiom of `nnx.ConvTranspose`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import nnx

import lcmulti
from lcmulti.errors import ArgumentError, ArgumentTypeError
from lcmulti.geometry.arguments import integer
from lcmulti.geometry.shapes import window_extent
from lcmulti.geometry.transposed import bias_shape_of, output_padding_of, transposed_arguments
from lcmulti_jax import base
from lcmulti_jax.conversion import as_adjoint
from lcmulti_jax.nnx_base import (
    NONE,
    WORDS,
    Initializer,
    Ints,
    Layer,
    Padding,
    blank,
    default_bias_init,
    default_kernel_init,
    masked,
    pairs_of,
    per_flax_axis,
    weighted,
)

__all__ = ["LocallyConnectedTranspose"]


class LocallyConnectedTranspose(Layer):
    """A transposed convolution whose weights differ at every input position.

    It is the exact adjoint of the `LocallyConnected` that has the same arguments, and outputs of
    size *input_size*.

    Parameters
    ----------
    in_features, out_features, kernel_size, input_size, strides
        As in `LocallyConnected`; *input_size* is that of this layer.
    padding : str, int or sequence, default ``"SAME"``
        Padding of the operation this is the adjoint of. With ``"SAME"`` the output has the size
        *input_size* times *strides*.
    output_padding : int or sequence of int, optional
        As in `lcmulti.transposed_spec`. None: as in `flax.nnx.ConvTranspose`, where the output for
        ``"VALID"`` is not smaller than *input_size* times *strides*.
    kernel_dilation, feature_group_count, use_bias, dtype, param_dtype, precision, kernel_init,
    bias_init, shared_axes, rank, implementation, kernel_metadata, bias_metadata, rngs
        As in `LocallyConnected`.

    Attributes
    ----------
    kernel : nnx.Param
        ``(*input_size, *kernel_size, out_features // feature_group_count, in_features)``.
    bias : nnx.Param or None
        ``(*output_size, out_features)``.
    spec : LocalConvSpec
        The geometry of the operation this is the adjoint of.

    Raises
    ------
    ArgumentError
        For an argument that is not allowed; at call time (`ShapeError`) for samples of another
        shape.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: Ints,
        input_size: Ints,
        strides: Ints | None = 1,
        *,
        padding: Padding = "SAME",
        output_padding: Ints | None = None,
        kernel_dilation: Ints | None = 1,
        feature_group_count: int = 1,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        kernel_init: Initializer = default_kernel_init,
        bias_init: Initializer = default_bias_init,
        shared_axes: Sequence[int] = (),
        rank: int | None = None,
        implementation: str = "auto",
        kernel_metadata: Mapping[str, Any] = NONE,
        bias_metadata: Mapping[str, Any] = NONE,
        rngs: nnx.Rngs,
    ) -> None:
        with base.in_words(WORDS):
            size, kernel, steps, dilation = base.sizes(
                kernel_size, input_size, strides, kernel_dilation
            )
            if output_padding is None and isinstance(padding, str) and padding.upper() == "VALID":
                windows = zip(kernel, dilation, steps, strict=True)
                output_padding = tuple(max(s - window_extent(k, d), 0) for k, d, s in windows)
            self.spec = lcmulti.transposed_spec(
                (*size, integer("in_features", in_features, 1)),
                integer("out_features", out_features, 1),
                kernel,
                strides=steps,
                padding=padding,
                output_padding=output_padding,
                dilation=dilation,
                groups=feature_group_count,
                data_format="channels_last",
                shared_axes=shared_axes,
            )
        self._keep(dtype, param_dtype, precision, rank, implementation)
        bias_shape = bias_shape_of(self.spec) if use_bias else None
        self._make_parameters(
            bias_shape, kernel_init, bias_init, rngs, kernel_metadata, bias_metadata
        )

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Apply the layer.

        Parameters
        ----------
        inputs : array
            ``(*batch, *input_size, in_features)``, with any number of batch dimensions.

        Returns
        -------
        array
            ``(*batch, *output_size, out_features)``.
        """
        return self._on_batches(self._run, inputs, self.spec.output_shape)

    def _run(self, x: jax.Array) -> jax.Array:
        bias = None if self.bias is None else self.bias[...]
        x, kernel, bias = self._promoted(x, self.full_kernel(), bias)
        y: jax.Array = lcmulti.local_conv_transpose(
            x, kernel, bias, implementation=self.implementation,
            **transposed_arguments(self.spec),
        )  # fmt: skip
        return y

    @property
    def in_features(self) -> int:
        """As in `flax.nnx.ConvTranspose`."""
        return self.spec.filters

    @property
    def out_features(self) -> int:
        """As in `flax.nnx.ConvTranspose`."""
        return self.spec.in_channels

    @property
    def input_size(self) -> tuple[int, ...]:
        """Spatial size of the input."""
        return self.spec.output_size

    @property
    def output_padding(self) -> tuple[int, ...]:
        """By how much the output is longer than the shortest possible one, along each axis."""
        return output_padding_of(self.spec)

    @classmethod
    def from_conv(
        cls,
        conv: nnx.ConvTranspose,
        input_size: Ints,
        *,
        shared_axes: Sequence[int] = (),
        implementation: str = "auto",
    ) -> Self:
        """A layer that computes what *conv* does; see `LocallyConnected.from_conv`.

        Raises
        ------
        ArgumentError
            If *conv* is another module, pads with other than zeros, or pads by more than the
            kernel.
        """
        if not isinstance(conv, nnx.ConvTranspose):
            raise ArgumentTypeError("conv", "a flax.nnx.ConvTranspose", conv)
        padding: Any = conv.padding
        output_padding: tuple[int, ...] | None = None
        # Padding of the dilated input becomes padding of the adjoint operation.
        if not isinstance(padding, str):
            axes = len(conv.kernel_size)
            extents = map(
                window_extent, conv.kernel_size, per_flax_axis(conv.kernel_dilation, axes)
            )
            pairs = zip(extents, pairs_of(padding, axes), strict=True)
            padding = tuple((e - 1 - low, e - 1 - high) for e, (low, high) in pairs)
            output_padding = (0,) * axes
        elif padding.upper() not in ("SAME", "VALID"):
            raise ArgumentError("conv", "a padding of zeros", padding)
        if min((n for pair in padding for n in pair if not isinstance(n, str)), default=0) < 0:
            raise ArgumentError("conv", "no padding larger than its kernel", conv.padding)
        layer = cls(
            conv.in_features, conv.out_features, conv.kernel_size, input_size, conv.strides,
            padding=padding, output_padding=output_padding, kernel_dilation=conv.kernel_dilation,
            shared_axes=shared_axes, implementation=implementation, **blank(conv),
        )  # fmt: skip
        kernel = masked(conv)
        # With *transpose_kernel*, the kernel is that of the adjoint operation already.
        own = kernel if conv.transpose_kernel else as_adjoint(kernel, 1)
        return layer._spread(own, conv.bias)

    def to_conv(self, tolerance: float | None = 0.0) -> nnx.ConvTranspose:
        """The transposed convolution equal to this layer; see `LocallyConnected.to_conv`.

        Raises
        ------
        ArgumentError
            If weights differ between positions by more than *tolerance*, or the layer has groups,
            which `flax.nnx.ConvTranspose` does not have.
        """
        spec = self.spec
        if spec.groups > 1:
            raise ArgumentError("feature_group_count", "1, as ConvTranspose has", spec.groups)
        kernel, bias = self._everywhere(tolerance)
        extents = map(window_extent, spec.kernel_size, spec.dilation)
        padding = [
            (extent - 1 - low, extent - 1 - high + more)
            for extent, (low, high), more in zip(
                extents, spec.padding, self.output_padding, strict=True
            )
        ]
        conv = nnx.ConvTranspose(
            self.in_features, self.out_features, self.kernel_size, self.strides, padding=padding,
            kernel_dilation=self.kernel_dilation, **blank(self),
        )  # fmt: skip
        return weighted(conv, as_adjoint(kernel, 1), bias)
