"""`LocallyConnected1DTranspose`, `2D` and `3D`, like Keras' ``Conv*DTranspose``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import keras

import lcmulti
from lcmulti.errors import ArgumentError
from lcmulti.geometry.arguments import per_axis
from lcmulti.geometry.shapes import window_extent
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.geometry.transposed import bias_shape_of
from lcmulti.types import Array
from lcmulti_keras.arguments import LayerArguments
from lcmulti_keras.base import LocallyConnectedBase

__all__ = [
    "LocallyConnected1DTranspose",
    "LocallyConnected2DTranspose",
    "LocallyConnected3DTranspose",
]


class LocallyConnectedTranspose(LocallyConnectedBase):
    """A transposed convolution whose weights differ at every input position.

    It is the adjoint of the locally connected layer whose output has the size of this layer's
    input. The arguments are those of Keras' transposed convolutions, and ``implementation``,
    ``groups``, ``shared_axes`` and ``rank`` as in `LocallyConnected2D`.

    Parameters
    ----------
    filters : int
        Output channels.
    kernel_size, strides, dilation_rate : int or sequence of int
        One for all spatial axes, or one per axis. Strides or dilation must be 1.
    padding : str, int or sequence, default ``"valid"``
        ``"valid"`` and ``"same"`` are as in Keras: the output has the size ``(size - 1) * strides +
        max(kernel_size, strides)``, or ``size * strides``. Any other padding that
        `lcmulti.transposed_spec` takes is that of the operation this is the adjoint of.
    output_padding : int or sequence of int, optional
        As in Keras, and less than the strides. With ``"valid"`` padding the output has the size
        ``(size - 1) * strides + kernel_size + output_padding``. With ``"same"`` it has the size
        ``(size - 1) * strides + kernel_size % 2 + output_padding`` (of the dilated window). With
        any other padding it is added to the smallest size.
    data_format, activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer,
    bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint, implementation,
    groups, shared_axes, rank, **kwargs
        As in `LocallyConnected2D`; shared axes are those of the input.

    Attributes
    ----------
    kernel : keras.Variable
        ``(*input_size, *kernel_size, filters // groups, in_channels)``, with 1 along shared axes.
        With a rank None, and instead ``basis`` and ``coefficients``.
    bias : keras.Variable or None
        ``(*output_size, filters)``, with 1 along shared axes.
    spec : LocalConvSpec
        The geometry of the operation this is the adjoint of, once the layer is built.

    Raises
    ------
    ArgumentError
        (a `ValueError`) Names the argument, what is allowed and what was given.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: Any = "valid",
        output_padding: int | Sequence[int] | None = None,
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        implementation: str = "auto",
        groups: int = 1,
        shared_axes: Sequence[int] = (),
        rank: int | None = None,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        super().__init__(
            filters=filters, kernel_size=kernel_size, strides=strides, padding=padding,
            data_format=data_format, dilation_rate=dilation_rate, groups=groups,
            activation=activation, use_bias=use_bias, kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer, kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer, activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint, bias_constraint=bias_constraint,
            implementation=implementation, shared_axes=shared_axes, rank=rank, **kwargs,
        )  # fmt: skip
        self.output_padding = None
        if output_padding is not None:
            self.output_padding = per_axis("output_padding", output_padding, self.ndim, minimum=0)
            if any(e >= s for e, s in zip(self.output_padding, self.strides, strict=True)):
                what = f"less than the strides {self.strides}"
                raise ArgumentError("output_padding", what, output_padding)

    def _geometry(self, sample: tuple[int, ...]) -> LocalConvSpec:
        padding, output_padding = self._paddings()
        return lcmulti.transposed_spec(
            sample,
            self.filters,
            self.kernel_size,
            strides=self.strides,
            padding=padding,
            output_padding=output_padding,
            dilation=self.dilation_rate,
            groups=self.groups,
            data_format=self.data_format,
            shared_axes=self.shared_axes,
        )

    def _paddings(self) -> tuple[Any, Any]:
        """Convert padding and output padding of Keras to those of lcmulti."""
        given = self.output_padding
        extents = tuple(map(window_extent, self.kernel_size, self.dilation_rate))
        axes = tuple(zip(extents, self.strides, strict=True))
        if self.padding == "valid" and given is None:
            return "valid", tuple(max(stride - extent, 0) for extent, stride in axes)
        if self.padding != "same" or given is None:
            return self.padding, given
        # As in TensorFlow, an odd one is cut off at the end.
        cut = [n - n % 2 - extra for n, extra in zip(extents, given, strict=True)]
        pairs = tuple((max(n, 0) // 2, max(n, 0) - max(n, 0) // 2) for n in cut)
        return pairs, tuple(max(-n, 0) for n in cut)

    def _bias_shape(self) -> tuple[int, ...]:
        return bias_shape_of(self.spec)

    def call(self, inputs: Any) -> Array:
        """``(N, *input_size, channels)`` to ``(N, *output_size, filters)``, or channels first."""
        self._require_fitting(tuple(inputs.shape)[1:])
        padding, output_padding = self._paddings()
        x, kernel, bias = self._cast(inputs, self.full_kernel(), self.bias)
        y = lcmulti.local_conv_transpose(
            x, kernel, bias, padding=padding, output_padding=output_padding, **self._arguments()
        )
        return self.activation(y)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """Shape of the output, including the batch."""
        sample = self._sample_shape(input_shape)
        self._require_fitting(sample)
        return (input_shape[0], *self._geometry(sample).input_shape)

    def get_config(self) -> dict[str, Any]:
        """The arguments of `__init__`, serialised."""
        return super().get_config() | {"output_padding": self.output_padding}


@keras.saving.register_keras_serializable(package="lcmulti_keras")
class LocallyConnected1DTranspose(LocallyConnectedTranspose):  # noqa: D101 - its base's
    __doc__ = LocallyConnectedTranspose.__doc__
    ndim, convolution = 1, "Conv1DTranspose"


@keras.saving.register_keras_serializable(package="lcmulti_keras")
class LocallyConnected2DTranspose(LocallyConnectedTranspose):  # noqa: D101 - its base's
    __doc__ = LocallyConnectedTranspose.__doc__
    ndim, convolution = 2, "Conv2DTranspose"


@keras.saving.register_keras_serializable(package="lcmulti_keras")
class LocallyConnected3DTranspose(LocallyConnectedTranspose):  # noqa: D101 - its base's
    __doc__ = LocallyConnectedTranspose.__doc__
    ndim, convolution = 3, "Conv3DTranspose"
