"""The arguments that all layers have: checked, kept as attributes, and serialised."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import keras
from keras import activations, constraints, initializers, regularizers

from lcmulti.errors import ArgumentError, LcmultiError
from lcmulti.geometry.arguments import choice, integer, per_axis, spatial_axes
from lcmulti.geometry.formats import DATA_FORMATS
from lcmulti_keras.arguments import implementation_of, padding_of, take_input_shape
from lcmulti_keras.axes import warn_of_other_axes

__all__ = ["Configured"]


class Configured(keras.layers.Layer):
    """A layer with the arguments that all layers have, and without weights.

    The number of spatial axes is a class attribute.
    """

    ndim: ClassVar[int]
    filters: int
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    dilation_rate: tuple[int, ...]
    data_format: str
    groups: int
    shared_axes: tuple[int, ...]
    rank: int | None
    implementation: str | int

    def __init__(
        self, *, filters: Any, kernel_size: Any, strides: Any, padding: Any, data_format: Any,
        dilation_rate: Any, groups: Any, activation: Any, use_bias: Any, kernel_initializer: Any,
        bias_initializer: Any, kernel_regularizer: Any, bias_regularizer: Any,
        activity_regularizer: Any, kernel_constraint: Any, bias_constraint: Any,
        implementation: Any, shared_axes: Any, rank: Any, **kwargs: Any,
    ) -> None:  # fmt: skip
        take_input_shape(kwargs, self.ndim, data_format)
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.filters = integer("filters", filters, 1)
        self.kernel_size = per_axis("kernel_size", kernel_size, self.ndim)
        self.strides = per_axis("strides", strides, self.ndim)
        self.dilation_rate = per_axis("dilation_rate", dilation_rate, self.ndim)
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            what = f"1 with strides {self.strides}: not both may differ from 1"
            raise ArgumentError("dilation_rate", what, self.dilation_rate)
        self.padding = padding_of(padding, self.ndim)
        self.data_format = choice(
            "data_format",
            keras.config.image_data_format() if data_format is None else data_format,
            DATA_FORMATS,
        )
        self.groups = integer("groups", groups, 1)
        if self.filters % self.groups:
            raise ArgumentError("groups", f"a divisor of filters={self.filters}", groups)
        self.shared_axes = spatial_axes("shared_axes", shared_axes, self.ndim)
        self.rank = None if rank is None else integer("rank", rank, 1)
        self.implementation = implementation_of(implementation)
        self.activation = activations.get(activation)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)
        if self.rank is not None and self.kernel_constraint is not None:
            what = "None with a rank, because the kernel is then not a variable"
            raise ArgumentError("kernel_constraint", what, kernel_constraint)
        warn_of_other_axes(self.implementation, self.kernel_constraint)
        self.input_spec = keras.layers.InputSpec(ndim=self.ndim + 2)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A layer with the arguments that `get_config` returns; wrong ones raise as `__init__`."""
        try:
            layer: Self = super().from_config(config)
        except TypeError as error:  # of Keras, which shows the config before the reason
            if isinstance(error.__context__, LcmultiError):
                raise error.__context__ from None
            raise
        return layer

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
            "shared_axes": self.shared_axes,
            "rank": self.rank,
        }
