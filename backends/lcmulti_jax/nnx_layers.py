"""Flax NNX: `LocallyConnected`, in the idiom of `nnx.Conv`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import nnx

import lcmulti
from lcmulti.errors import ArgumentError, ArgumentTypeError, described
from lcmulti.geometry.arguments import integer, is_sequence
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti_jax import base
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
    weighted,
)

__all__ = ["LocallyConnected"]


class LocallyConnected(Layer):
    """A convolution whose weights differ at every output position.

    Parameters
    ----------
    in_features, out_features : int
    kernel_size : int or sequence of int
        One number for each spatial axis; an int means one axis.
    input_size : int or sequence of int
        Spatial size of the input. The layer must know it, because each position has weights.
    strides, kernel_dilation : int or sequence of int, default 1
    padding : str, int or sequence, default ``"SAME"``
        As in `flax.nnx.Conv` (``"SAME"``, ``"VALID"``, ``"CAUSAL"``, ``"CIRCULAR"``, ``"REFLECT"``,
        ints, ``(low, high)`` pairs).
    feature_group_count : int, default 1
    use_bias : bool, default True
    dtype, param_dtype
        As in `flax.nnx.Conv`: dtype of the computation (None: promoted), and of the parameters.
    precision
        Accepted for compatibility with `flax.nnx.Conv`, and without effect: lcmulti never rounds
        float32 to a shorter type, and sums half types in float32.
    kernel_init, bias_init : initializer
        *kernel_init* gets the shape of one position, so that fans are those of a convolution.
    shared_axes : sequence of int, default ()
        Spatial axes of the output along which the kernel is shared.
    rank : int, optional
        Low-rank weights: the kernel of a position is a sum of *rank* shared kernels times
        coefficients of its own (arXiv 2002.02959).
    implementation : str, default "auto"
    kernel_metadata, bias_metadata : mapping
        Metadata of the parameters. ``out_sharding`` shards them; their axis 0 is output rows.
    rngs : flax.nnx.Rngs

    Attributes
    ----------
    kernel : nnx.Param
        ``(*output_size, *kernel_size, in_features // feature_group_count, out_features)``.
        With a rank, there are ``basis`` ``(rank, 1.., *kernel_size, .., out_features)`` and
        ``coefficients`` ``(*output_size, rank)``.
    bias : nnx.Param or None
        ``(*output_size, out_features)``.
    spec : LocalConvSpec

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
            pads, mode = base.normalised_padding(padding, size, kernel, steps, dilation)
            self.spec = LocalConvSpec(
                (*size, integer("in_features", in_features, 1)),
                integer("out_features", out_features, 1),
                kernel,
                strides=steps,
                padding=pads,
                padding_mode=mode,
                dilation=dilation,
                groups=feature_group_count,
                data_format="channels_last",
                shared_axes=shared_axes,
            )
        self._keep(dtype, param_dtype, precision, rank, implementation)
        bias_shape = self.spec.bias_shape if use_bias else None
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
        return self._on_batches(self._run, inputs, self.spec.input_shape)

    def _run(self, x: jax.Array) -> jax.Array:
        bias = None if self.bias is None else self.bias[...]
        arguments = self.spec.arguments() | {"implementation": self.implementation}
        if self.rank is None:
            x, kernel, bias = self._promoted(x, self.kernel[...], bias)
            y: jax.Array = lcmulti.local_conv(x, kernel, bias, **arguments)
            return y
        x, basis, mixed, bias = self._promoted(x, self.basis[...], self.coefficients[...], bias)
        z: jax.Array = lcmulti.local_conv_low_rank(x, basis, mixed, bias, **arguments)
        return z

    @property
    def in_features(self) -> int:
        """As in `flax.nnx.Conv`."""
        return self.spec.in_channels

    @property
    def out_features(self) -> int:
        """As in `flax.nnx.Conv`."""
        return self.spec.filters

    @property
    def input_size(self) -> tuple[int, ...]:
        """Spatial size of the input."""
        return self.spec.input_size

    @classmethod
    def from_conv(
        cls,
        conv: nnx.Conv,
        input_size: Ints,
        *,
        shared_axes: Sequence[int] = (),
        implementation: str = "auto",
    ) -> Self:
        """A layer that computes what *conv* does; in training, its positions may become different.

        Parameters
        ----------
        conv : flax.nnx.Conv
            Its mask, if it has one, is applied. The layer takes its dtypes.
        input_size : int or sequence of int
        shared_axes, implementation
            Arguments of the layer.

        Raises
        ------
        ArgumentError
            If *conv* is another module, or dilates its input (``input_dilation``).
        """
        if not isinstance(conv, nnx.Conv):
            raise ArgumentTypeError("conv", "a flax.nnx.Conv", conv)
        spread = conv.input_dilation
        if any(each != 1 for each in (spread if is_sequence(spread) else (spread or 1,))):
            raise ArgumentError("conv", "an input_dilation of 1", spread)
        layer = cls(
            conv.in_features, conv.out_features, conv.kernel_size, input_size, conv.strides,
            padding=conv.padding, kernel_dilation=conv.kernel_dilation,
            feature_group_count=conv.feature_group_count, shared_axes=shared_axes,
            implementation=implementation, **blank(conv),
        )  # fmt: skip
        return layer._spread(masked(conv), conv.bias)

    def to_conv(self, tolerance: float | None = 0.0) -> nnx.Conv:
        """The convolution equal to this layer, or with *tolerance* None the mean over positions.

        Parameters
        ----------
        tolerance : float or None, default 0
            Largest difference of a weight between two positions.

        Raises
        ------
        ArgumentError
            If weights differ more between positions (the message says by how much), or if
            `flax.nnx.Conv` does not have this padding.
        """
        spec = self.spec
        padding: Any = spec.padding
        if spec.padding_mode != "zeros":
            padding = spec.padding_mode.upper()
            same = (
                padding in ("CIRCULAR", "REFLECT")
                and spec.padding
                == base.normalised_padding(
                    padding, spec.input_size, spec.kernel_size, spec.strides, spec.dilation
                )[0]
            )
            if not same:
                shown = described(f"{spec.padding_mode} by {spec.padding}")
                raise ArgumentError("padding", "one that flax.nnx.Conv has", shown)
        kernel, bias = self._everywhere(tolerance)
        conv = nnx.Conv(
            self.in_features, self.out_features, self.kernel_size, self.strides, padding=padding,
            kernel_dilation=self.kernel_dilation, feature_group_count=self.feature_group_count,
            **blank(self),
        )  # fmt: skip
        return weighted(conv, kernel, bias)
