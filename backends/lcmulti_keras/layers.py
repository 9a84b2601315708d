"""`LocallyConnected1D`, `2D` and `3D`: one layer for any number of axes under three names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import keras
from keras import activations, constraints, initializers, ops, regularizers

import lcmulti
from lcmulti import plugins
from lcmulti.arguments import choice, integer, is_sequence, per_axis
from lcmulti.errors import ArgumentError, ArgumentTypeError, ShapeError, described
from lcmulti.shapes import PADDING_MODES
from lcmulti.spec import DATA_FORMATS, LocalConvSpec
from lcmulti_keras.arguments import (
    KERAS2_IMPLEMENTATIONS,
    implementation_of,
    padding_of,
    shared_axes_of,
)
from lcmulti_keras.axes import moved_axes
from lcmulti_keras.initializers import kernel_initializer as adapted

__all__ = ["LocallyConnected1D", "LocallyConnected2D", "LocallyConnected3D"]


class LocallyConnected(keras.layers.Layer):
    """A convolution whose weights differ at every output position, in any number of axes.

    The arguments are those of Keras 2's layers, and ``dilation_rate``, ``groups``,
    ``padding_mode``, ``shared_axes`` and ``keras2_init``. Activations, initialisers,
    regularisers and constraints are Keras' own, by name, config or object.

    Parameters
    ----------
    filters : int
        Output channels.
    kernel_size, strides, dilation_rate : int or sequence of int
        One for all spatial axes, or one per axis. Not both of strides and dilation other than 1.
    padding : str, int or sequence, default ``"valid"``
        In any case: ``"valid"``; ``"same"``, as a convolution pads; ``"causal"`` (1D);
        ``"keras_same"``, which Keras 2's locally connected layers called "same"; or what
        `lcmulti.LocalConvSpec` takes.
    data_format : {"channels_last", "channels_first"}, optional
        None takes that of keras.json.
    activation : str, callable or None
    use_bias : bool, default True
        A bias per position and filter.
    kernel_initializer, bias_initializer
        Give each position what they would give a convolution of the same geometry.
    kernel_regularizer, bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint
        Of the whole kernel, bias or output.
    implementation : str or {1, 2, 3}, default ``"auto"``
        A name chooses among lcmulti's implementations, where the running backend has it.
        The numbers of Keras 2 are accepted and choose nothing: how the layer computes and how
        it stores its weights does not depend on them (`keras2_init` does).
    groups : int, default 1
        The channels of a filter's group are all it sees.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What the padding is filled with.
    shared_axes : tuple of int, default ()
        Spatial axes along which one kernel and bias is shared, counted from 0.
    keras2_init : bool, default False
        Start the weights at Keras 2's scale for `implementation` (1 where that is no number),
        about ``sqrt(positions)`` smaller, to reproduce old work.
    **kwargs
        Of `keras.layers.Layer`; also ``input_shape``, ``batch_input_shape`` and, in 1D,
        ``input_dim`` with ``input_length``.

    Attributes
    ----------
    kernel : keras.Variable
        ``(*output_size, *kernel_size, in_channels // groups, filters)`` in either data format,
        1 along shared axes.
    bias : keras.Variable or None
        ``(*output_size, filters)``.
    spec : LocalConvSpec
        The geometry, once built.

    Raises
    ------
    ArgumentError
        (a `ValueError`) naming the argument, what was expected and what came.
    """

    rank: ClassVar[int]

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
        **kwargs: Any,
    ) -> None:
        self._take_input_shape(kwargs, data_format)
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.filters = integer("filters", filters, 1)
        self.kernel_size = per_axis("kernel_size", kernel_size, self.rank)
        self.strides = per_axis("strides", strides, self.rank)
        self.dilation_rate = per_axis("dilation_rate", dilation_rate, self.rank)
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            what = f"1 with strides {self.strides}: not both may differ from 1"
            raise ArgumentError("dilation_rate", what, self.dilation_rate)
        self.padding = padding_of(padding, self.rank)
        self.padding_mode = choice("padding_mode", padding_mode, PADDING_MODES)
        self.data_format = choice(
            "data_format",
            keras.config.image_data_format() if data_format is None else data_format,
            DATA_FORMATS,
        )
        self.groups = integer("groups", groups, 1)
        if self.filters % self.groups:
            raise ArgumentError("groups", f"a divisor of filters={self.filters}", groups)
        self.shared_axes = shared_axes_of(shared_axes, self.rank)
        self.implementation = implementation_of(implementation)
        self.keras2_init = bool(keras2_init)
        self.activation = activations.get(activation)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)
        self.input_spec = keras.layers.InputSpec(ndim=self.rank + 2)

    def _take_input_shape(self, kwargs: dict[str, Any], data_format: str | None) -> None:
        """Turn Keras 2's older ways to give the input shape into ``input_shape``."""
        batched = kwargs.pop("batch_input_shape", None)
        if batched is not None:
            kwargs["input_shape"] = tuple(batched)[1:]
        if self.rank == 1 and "input_length" in kwargs:
            shape = (kwargs.pop("input_length"), kwargs.pop("input_dim", None))
            first = (data_format or keras.config.image_data_format()) == "channels_first"
            kwargs["input_shape"] = shape[::-1] if first else shape

    def _geometry(self, input_shape: Any) -> LocalConvSpec:
        if not is_sequence(input_shape) or len(input_shape) != self.rank + 2:
            raise ShapeError(
                "input_shape", f"{self.rank + 2} axes, the first the batch", input_shape
            )
        shape = tuple(input_shape)
        if None in shape[1:]:
            raise ShapeError(
                "input_shape",
                f"the spatial dimensions of the inputs to a {type(self).__name__} layer, which "
                "should be fully-defined, as its weights differ at every position",
                shape,
            )
        return LocalConvSpec(
            shape[1:],
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

    def build(self, input_shape: Any) -> None:
        """Make the weights; their number of variables does not depend on the positions."""
        self.spec = spec = self._geometry(input_shape)
        numbered = self.implementation if self.implementation in KERAS2_IMPLEMENTATIONS else 1
        self.kernel = self.add_weight(
            name="kernel",
            shape=spec.kernel_shape,
            initializer=adapted(
                self.kernel_initializer, spec, numbered if self.keras2_init else None
            ),
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=spec.bias_shape,
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        channel = -1 if self.data_format == "channels_last" else 1
        self.input_spec = keras.layers.InputSpec(
            ndim=self.rank + 2, axes={channel: spec.in_channels}
        )

    def call(self, inputs: Any) -> Any:
        """``(N, *input_size, channels)`` to ``(N, *output_size, filters)``, or channels first."""
        backend = keras.config.backend()
        y = lcmulti.local_conv(
            ops.cast(inputs, self.compute_dtype),
            ops.cast(self.kernel.value, self.compute_dtype),
            None if self.bias is None else ops.cast(self.bias.value, self.compute_dtype),
            strides=self.strides,
            padding=self.padding,
            padding_mode=self.padding_mode,
            dilation=self.dilation_rate,
            groups=self.groups,
            data_format=self.data_format,
            backend=backend,
            implementation=self._implementation_on(backend),
        )
        return self.activation(y)

    def _implementation_on(self, backend: str) -> str:
        """The name asked for, where *backend* has it: a model may move to another one."""
        has = (backend, self.implementation) in plugins.registry().implementations
        return str(self.implementation) if has else "auto"

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """Shape of the output, the batch included."""
        return (input_shape[0], *self._geometry(input_shape).output_shape)

    def get_config(self) -> dict[str, Any]:
        """The arguments of `__init__`, serialised."""
        return super().get_config() | {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
            "bias_initializer": initializers.serialize(self.bias_initializer),
            "kernel_regularizer": regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": regularizers.serialize(self.bias_regularizer),
            "activity_regularizer": regularizers.serialize(self.activity_regularizer),
            "kernel_constraint": constraints.serialize(self.kernel_constraint),
            "bias_constraint": constraints.serialize(self.bias_constraint),
            "implementation": self.implementation,
            "dilation_rate": self.dilation_rate,
            "groups": self.groups,
            "padding_mode": self.padding_mode,
            "shared_axes": self.shared_axes,
            "keras2_init": self.keras2_init,
        }

    @classmethod
    def from_conv(cls, conv: Any, input_shape: Sequence[int], **changes: Any) -> Self:
        """Start from a trained convolution: the same outputs, then free at each position.

        Parameters
        ----------
        conv : keras.layers.Conv1D, Conv2D or Conv3D
            Built, and of as many axes as this layer.
        input_shape : tuple of int
            Of one sample, as ``input_shape=`` of a layer takes it.
        **changes
            Arguments of the new layer that are not to be the convolution's.

        Returns
        -------
        LocallyConnected
            Built, with the convolution's weights at every position.

        Raises
        ------
        ArgumentError
            If *conv* is no such layer or not built, or does not take *input_shape*.
        """
        kind = getattr(keras.layers, f"Conv{cls.rank}D")
        if not isinstance(conv, kind) or not conv.built:
            shown = described(f"{type(conv).__name__}, built: {getattr(conv, 'built', False)}")
            raise ArgumentTypeError("conv", f"a keras.layers.{kind.__name__} that is built", shown)

        # A convolution's kernel is ours without the positions, so its axes come that much later.
        def later(axis: int) -> list[int]:
            return [axis + cls.rank if axis >= 0 else axis]

        config = conv.get_config()
        del config["name"]
        for each in ("kernel_constraint", "bias_constraint"):
            config[each] = moved_axes(config[each], later)
        layer = cls.from_config(config | changes)
        layer.build((None, *input_shape))
        if layer.spec.in_channels != conv.kernel.shape[-2] * conv.groups:
            channels = conv.kernel.shape[-2] * conv.groups
            raise ShapeError("input_shape", f"{channels} channels, as conv takes", input_shape)
        layer.kernel.assign(ops.broadcast_to(conv.kernel, layer.kernel.shape))
        if layer.bias is not None and conv.bias is not None:
            layer.bias.assign(ops.broadcast_to(conv.bias, layer.bias.shape))
        return layer


@keras.saving.register_keras_serializable(package="lcmulti_keras")
class LocallyConnected1D(LocallyConnected):
    """One spatial axis, ``(N, length, channels)``; see `LocallyConnected`."""

    rank = 1


@keras.saving.register_keras_serializable(package="lcmulti_keras")
class LocallyConnected2D(LocallyConnected):
    """Two spatial axes, ``(N, rows, columns, channels)``; see `LocallyConnected`."""

    rank = 2


@keras.saving.register_keras_serializable(package="lcmulti_keras")
class LocallyConnected3D(LocallyConnected):
    """Three spatial axes, ``(N, depth, rows, columns, channels)``; see `LocallyConnected`."""

    rank = 3
