"""`LocallyConnected1D`, `2D` and `3D`: one layer for any number of axes under three names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import keras

import lcmulti
from lcmulti.geometry.arguments import choice
from lcmulti.geometry.padding import PADDING_MODES
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.types import Array
from lcmulti_keras.arguments import (
    KERAS2_IMPLEMENTATIONS,
    LayerArguments,
)
from lcmulti_keras.base import LocallyConnectedBase

__all__ = ["LocallyConnected1D", "LocallyConnected2D", "LocallyConnected3D"]


class LocallyConnected(LocallyConnectedBase):
    """A convolution whose weights differ at every output position, in any number of axes.

    The arguments are those of Keras 2's layers, and in addition ``dilation_rate``, ``groups``,
    ``padding_mode``, ``shared_axes``, ``keras2_init`` and ``rank``. Activations, initialisers,
    regularisers and constraints are those of Keras: a name, a config or an object.

    Parameters
    ----------
    filters : int
        Output channels.
    kernel_size, strides, dilation_rate : int or sequence of int
        One for all spatial axes, or one per axis. Strides or dilation must be 1.
    padding : str, int or sequence, default ``"valid"``
        In any case: ``"valid"``; ``"same"``, as a convolution pads; ``"causal"`` (1D);
        ``"keras_same"``, which Keras 2's locally connected layers called "same"; or what
        `lcmulti.LocalConvSpec` takes.
    data_format : {"channels_last", "channels_first"}, optional
        None takes the format of keras.json.
    activation : str, callable or None
    use_bias : bool, default True
        Whether there is a bias for each position and filter.
    kernel_initializer, bias_initializer
        They treat each position like a convolution of the same geometry.
    kernel_regularizer, bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint
        They apply to the whole kernel, bias or output.
    implementation : str or {1, 2, 3}, default ``"auto"``
        A name chooses among lcmulti's implementations, if the running backend has it. The numbers
        of Keras 2 are accepted and have no effect on how the layer computes or stores its weights
        (only `keras2_init` uses them).
    groups : int, default 1
        Channels and filters are divided into so many groups; a filter reads its own group only.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What the padding is filled with.
    shared_axes : tuple of int, default ()
        Spatial axes, counted from 0, along which one kernel and one bias are shared.
    keras2_init : bool, default False
        Draw the initial weights at the scale of Keras 2's `implementation` (of 1 if that is not a
        number), which is about ``sqrt(positions)`` smaller, to reproduce old work.
    rank : int, optional
        Low-rank weights: the kernel of a position is a sum of *rank* shared kernels times
        coefficients of its own (arXiv 2002.02959). It excludes kernel_constraint. None: full rank.
    **kwargs
        Arguments of `keras.layers.Layer`; also ``input_shape``, ``batch_input_shape`` and, in 1D,
        ``input_dim`` with ``input_length``.

    Attributes
    ----------
    kernel : keras.Variable
        ``(*output_size, *kernel_size, in_channels // groups, filters)`` in either data format,
        with 1 along shared axes. None with a rank, which has these instead:
    basis, coefficients : keras.Variable
        ``(rank, 1.., *kernel_size, in_channels // groups, filters)`` and
        ``(*output_size, rank)``.
    bias : keras.Variable or None
        ``(*output_size, filters)``.
    spec : LocalConvSpec
        The geometry, once the layer is built.

    Raises
    ------
    ArgumentError
        (a `ValueError`) naming the argument, what was expected and what came.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: Any = "valid",
        data_format: str | None = None,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        implementation: str | int = "auto",
        dilation_rate: int | Sequence[int] = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
        shared_axes: Sequence[int] = (),
        keras2_init: bool = False,
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
        self.padding_mode = choice("padding_mode", padding_mode, PADDING_MODES)
        self.keras2_init = bool(keras2_init)

    def _geometry(self, sample: tuple[int, ...]) -> LocalConvSpec:
        return LocalConvSpec(
            sample,
            self.filters,
            self.kernel_size,
            strides=self.strides,
            padding=self.padding,
            padding_mode=self.padding_mode,
            dilation=self.dilation_rate,
            groups=self.groups,
            data_format=self.data_format,
            shared_axes=self.shared_axes,
        )

    def _keras2_implementation(self) -> int | None:
        if not self.keras2_init:
            return None
        numbered = self.implementation in KERAS2_IMPLEMENTATIONS
        return int(self.implementation) if numbered else 1

    def call(self, inputs: Any) -> Array:
        """``(N, *input_size, channels)`` to ``(N, *output_size, filters)``, or channels first."""
        self._require_fitting(tuple(inputs.shape)[1:])
        arguments = self._arguments() | {
            "padding": self.padding,
            "padding_mode": self.padding_mode,
        }
        if self.rank is None:
            x, kernel, bias = self._cast(inputs, self.kernel, self.bias)
            y = lcmulti.local_conv(x, kernel, bias, **arguments)
        else:
            x, basis, mixed, bias = self._cast(inputs, self.basis, self.coefficients, self.bias)
            y = lcmulti.local_conv_low_rank(x, basis, mixed, bias, **arguments)
        return self.activation(y)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """Shape of the output, the batch included."""
        sample = self._sample_shape(input_shape)
        self._require_fitting(sample)
        return (input_shape[0], *self._geometry(sample).output_shape)

    def get_config(self) -> dict[str, Any]:
        """The arguments of `__init__`, serialised."""
        return super().get_config() | {
            "padding_mode": self.padding_mode,
            "keras2_init": self.keras2_init,
        }


@keras.saving.register_keras_serializable(package="lcmulti_keras")
class LocallyConnected1D(LocallyConnected):  # noqa: D101 - its base's
    __doc__ = LocallyConnected.__doc__
    ndim, convolution = 1, "Conv1D"


@keras.saving.register_keras_serializable(package="lcmulti_keras")
class LocallyConnected2D(LocallyConnected):  # noqa: D101 - its base's
    __doc__ = LocallyConnected.__doc__
    ndim, convolution = 2, "Conv2D"


@keras.saving.register_keras_serializable(package="lcmulti_keras")
class LocallyConnected3D(LocallyConnected):  # noqa: D101 - its base's
    __doc__ = LocallyConnected.__doc__
    ndim, convolution = 3, "Conv3D"
