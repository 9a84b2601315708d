"""Flax NNX: `LocallyConnected` and `LocallyConnectedTranspose`, in the idiom of `nnx.Conv`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

import lcmulti
from lcmulti.geometry import shapes
from lcmulti.geometry.arguments import integer
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.geometry.transposed import bias_shape_of, output_padding_of
from lcmulti_jax import base
from lcmulti_jax.nnx_base import (
    NONE,
    Layer,
    default_bias_init,
    default_kernel_init,
    in_flax_words,
    nnx,
)

__all__ = ["LocallyConnected", "LocallyConnectedTranspose"]


class LocallyConnected(Layer):
    """A convolution whose weights differ at every output position.

    Parameters
    ----------
    in_features, out_features : int
    kernel_size : int or sequence of int
        As many as there are spatial axes; an int means one.
    input_size : int or sequence of int
        Spatial size of what comes in: each position has weights, so it is part of the layer.
    strides, kernel_dilation : int or sequence of int, default 1
    padding : str, int or sequence, default ``"SAME"``
        As in `flax.nnx.Conv` (``"SAME"``, ``"VALID"``, ``"CAUSAL"``, ``"CIRCULAR"``, ``"REFLECT"``,
        ints, ``(low, high)`` pairs).
    feature_group_count : int, default 1
    use_bias : bool, default True
    dtype, param_dtype
        As in `flax.nnx.Conv`: of the computation (None: promoted), and of the parameters.
    precision
        Taken for the sake of `flax.nnx.Conv`'s signature: lcmulti never rounds float32 further
        and sums half types in float32, whatever it says.
    kernel_init, bias_init : initializer
        *kernel_init* is called for one position at a time, so fans are those of a convolution.
    shared_axes : sequence of int, default ()
        Spatial axes of the output along which the kernel is shared.
    rank : int, optional
        Low-rank weights: the kernel of a position is a sum of *rank* shared kernels times
        coefficients of its own (arXiv 2002.02959).
    implementation : str, default "auto"
    kernel_metadata, bias_metadata : mapping
        Of the parameters; ``out_sharding`` shards them, axis 0 being output rows.
    rngs : flax.nnx.Rngs

    Attributes
    ----------
    kernel : nnx.Param
        ``(*output_size, *kernel_size, in_features // feature_group_count, out_features)``.
        With a rank, instead ``basis`` ``(rank, 1.., *kernel_size, .., out_features)`` and
        ``coefficients`` ``(*output_size, rank)``.
    bias : nnx.Param or None
        ``(*output_size, out_features)``.
    spec : LocalConvSpec

    Raises
    ------
    ArgumentError
        For an argument that cannot be; at call time (`ShapeError`) for samples of another shape.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: Any,
        input_size: Any,
        strides: Any = 1,
        *,
        padding: Any = "SAME",
        kernel_dilation: Any = 1,
        feature_group_count: int = 1,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        kernel_init: Any = default_kernel_init,
        bias_init: Any = default_bias_init,
        shared_axes: Any = (),
        rank: int | None = None,
        implementation: str = "auto",
        kernel_metadata: Mapping[str, Any] = NONE,
        bias_metadata: Mapping[str, Any] = NONE,
        rngs: nnx.Rngs,
    ) -> None:
        with in_flax_words():
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

    def __call__(self, inputs: Any) -> Any:
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

    def _run(self, x: Any) -> Any:
        spec = self.spec
        bias = None if self.bias is None else self.bias[...]
        arguments = {
            "strides": spec.strides,
            "padding": spec.padding,
            "padding_mode": spec.padding_mode,
            "dilation": spec.dilation,
            "groups": spec.groups,
            "data_format": "channels_last",
            "implementation": self.implementation,
        }
        if self.rank is None:
            x, kernel, bias = self._promoted(x, self.kernel[...], bias)
            return lcmulti.local_conv(x, kernel, bias, **arguments)
        x, basis, mixed, bias = self._promoted(x, self.basis[...], self.coefficients[...], bias)
        return lcmulti.local_conv_low_rank(x, basis, mixed, bias, **arguments)


class LocallyConnectedTranspose(Layer):
    """A transposed convolution whose weights differ at every input position.

    It is the exact adjoint of the `LocallyConnected` of the same arguments whose output has the
    size *input_size*.

    Parameters
    ----------
    in_features, out_features, kernel_size, input_size, strides
        As in `LocallyConnected`, of what comes in here.
    padding : str, int or sequence, default ``"SAME"``
        Of the operation this is the adjoint of. ``"SAME"`` gives *input_size* times *strides*.
    output_padding : int or sequence of int, optional
        As in `lcmulti.transposed_spec`. None: as `flax.nnx.ConvTranspose`, whose ``"VALID"``
        output is no smaller than *input_size* times *strides*.
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
        Of the operation this is the adjoint of.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: Any,
        input_size: Any,
        strides: Any = 1,
        *,
        padding: Any = "SAME",
        output_padding: Any = None,
        kernel_dilation: Any = 1,
        feature_group_count: int = 1,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        kernel_init: Any = default_kernel_init,
        bias_init: Any = default_bias_init,
        shared_axes: Any = (),
        rank: int | None = None,
        implementation: str = "auto",
        kernel_metadata: Mapping[str, Any] = NONE,
        bias_metadata: Mapping[str, Any] = NONE,
        rngs: nnx.Rngs,
    ) -> None:
        with in_flax_words():
            size, kernel, steps, dilation = base.sizes(
                kernel_size, input_size, strides, kernel_dilation
            )
            if output_padding is None and isinstance(padding, str) and padding.upper() == "VALID":
                windows = zip(kernel, dilation, steps, strict=True)
                output_padding = tuple(
                    max(s - shapes.window_extent(k, d), 0) for k, d, s in windows
                )
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

    def __call__(self, inputs: Any) -> Any:
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

    def _run(self, x: Any) -> Any:
        bias = None if self.bias is None else self.bias[...]
        x, kernel, bias = self._promoted(x, self.full_kernel(), bias)
        return lcmulti.local_conv_transpose(
            x,
            kernel,
            bias,
            strides=self.spec.strides,
            padding=self.spec.padding,
            output_padding=output_padding_of(self.spec),
            dilation=self.spec.dilation,
            groups=self.spec.groups,
            data_format="channels_last",
            implementation=self.implementation,
        )
