"""The base of the layers and of the transposed layers: arguments, weights and their sharing."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import TYPE_CHECKING, Any, ClassVar, Self

import keras
from keras import activations, constraints, initializers, ops, regularizers

import lcmulti
from lcmulti import plugins
from lcmulti.errors import ArgumentError, ShapeError, described
from lcmulti.geometry.arguments import choice, integer, is_sequence, per_axis
from lcmulti.geometry.formats import DATA_FORMATS
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.types import Array
from lcmulti.weights.initial import geometry_told
from lcmulti_keras.advising import require_own_layout
from lcmulti_keras.arguments import (
    implementation_of,
    padding_of,
    shared_axes_of,
    take_input_shape,
)
from lcmulti_keras.axes import warn_of_other_axes
from lcmulti_keras.convolutions import conv_of_layer, layer_of_conv
from lcmulti_keras.initializers import kernel_initializer as adapted
from lcmulti_keras.smoothness import SheetSmoothness
from lcmulti_keras.variables import tensor_of

__all__ = ["LocallyConnectedBase"]

if TYPE_CHECKING:  # `keras.Variable` is chosen as Keras starts, so no tool knows its class
    from keras.src.backend.common.variables import Variable


class LocallyConnectedBase(keras.layers.Layer):
    """A layer with weights and a geometry. The number of spatial axes is a class attribute.

    Attributes
    ----------
    spec : LocalConvSpec
        The geometry, once the layer is built; for a transposed layer, that of the operation it is
        the adjoint of.
    kernel : keras.Variable or None
        ``spec.kernel_shape``. With *rank*, there are ``basis`` and ``coefficients`` instead.
    bias : keras.Variable or None
    """

    ndim: ClassVar[int]
    convolution: ClassVar[str]
    """Name of the layer of Keras that this one is, shared along all axes."""
    spec: LocalConvSpec
    kernel: Variable
    basis: Variable
    coefficients: Variable
    bias: Variable | None
    filters: int
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    dilation_rate: tuple[int, ...]
    data_format: str
    groups: int
    shared_axes: tuple[int, ...]
    rank: int | None
    implementation: str | int

    if TYPE_CHECKING:

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """A tensor of Keras' backend, or a `keras.KerasTensor` for one."""
            ...

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
        self.shared_axes = shared_axes_of(shared_axes, self.ndim)
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
            what = "None with a rank, for then the kernel is no variable that could be constrained"
            raise ArgumentError("kernel_constraint", what, kernel_constraint)
        warn_of_other_axes(self.implementation, self.kernel_constraint)
        self.input_spec = keras.layers.InputSpec(ndim=self.ndim + 2)

    def _sample_shape(self, input_shape: Any) -> tuple[int, ...]:
        """Shape of one sample, without the batch; raise if a size that weights need is unknown."""
        if not is_sequence(input_shape) or len(input_shape) != self.ndim + 2:
            raise ShapeError(
                "input_shape", f"{self.ndim + 2} axes, the first the batch", input_shape
            )
        shape = tuple(input_shape)
        if None in shape[1:]:
            raise ShapeError(
                "input_shape",
                f"the spatial dimensions of the inputs to a {type(self).__name__} layer, which "
                "should be fully-defined, as its weights differ at every position",
                shape,
            )
        return shape[1:]

    def _geometry(self, sample: tuple[int, ...]) -> LocalConvSpec:
        """The spec for samples of this shape."""
        raise NotImplementedError

    def _bias_shape(self) -> tuple[int, ...]:
        return self.spec.bias_shape

    def _keras2_implementation(self) -> int | None:
        """The implementation of Keras 2 whose initial weights are wanted, or None."""
        return None

    def build(self, input_shape: Any) -> None:
        """Make the weights. The number of variables does not depend on the number of positions."""
        sample = self._sample_shape(input_shape)
        self.spec = spec = self._geometry(sample)
        taps = spec.kernel_shape[self.ndim :]
        self.kernel = self.basis = self.coefficients = self.bias = None
        if self.rank is None:
            initializer = adapted(
                self.kernel_initializer, spec.kernel_shape, spec, self._keras2_implementation()
            )
            self.kernel = self.add_weight(
                name="kernel",
                shape=spec.kernel_shape,
                initializer=initializer,
                regularizer=None if self.kernel_regularizer is None else self._penalty,
                constraint=self.kernel_constraint,
            )
        else:
            shape = (self.rank, *(1,) * self.ndim, *taps)
            self.basis = self.add_weight(
                name="basis",
                shape=shape,
                initializer=adapted(
                    self.kernel_initializer, shape, spec, self._keras2_implementation()
                ),
            )
            # With this variance, mixed kernels have the variance of the basis.
            self.coefficients = self.add_weight(
                name="coefficients",
                shape=(*spec.positions_shape, self.rank),
                initializer=initializers.RandomNormal(stddev=1 / sqrt(self.rank)),
                regularizer=None if self.kernel_regularizer is None else self._penalty,
            )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=self._bias_shape(),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self._built_for = sample

    def _require_fitting(self, shape: tuple[int | None, ...]) -> None:
        """Raise if samples have another shape than the weights, if there are weights already."""
        built_for = self._built_for if self.built else shape
        if any(n not in (None, m) for n, m in zip(shape, built_for, strict=True)):
            advice = f"for these build a new layer, on keras.Input({shape})"
            first = self.data_format == "channels_first"
            turned = (*built_for[1:], built_for[0]) if first else (built_for[-1], *built_for[:-1])
            if shape == turned:
                other = "channels_last" if first else "channels_first"
                advice = f"these are {other}: a layer with data_format={other!r} takes them"
            raise ShapeError(
                "inputs",
                f"samples of shape {self._built_for}, which the weights were made for",
                described(f"{shape}; {advice}"),
            )

    def set_weights(self, weights: Any) -> None:
        """Set the weights from a list of arrays, in the order and shapes of ``layer.weights``.

        Raises
        ------
        ShapeError
            If the kernel is in a layout of Keras 2. The message names the function that converts
            it.
        """
        require_own_layout(self, [tuple(getattr(each, "shape", ())) for each in weights])
        super().set_weights(weights)

    def load_own_variables(self, store: Any) -> None:
        """Load the weights. If they do not fit, the error names the geometry that they are for.

        Raises
        ------
        ShapeError
            Names both geometries. Keras shows the message in an error of its own.
        """
        stored = [tuple(store[name].shape) for name in sorted(store.keys(), key=int)]
        own = [tuple(each.shape) for each in self.weights]
        require_own_layout(self, stored)
        if stored and own:
            ours, theirs = self._told(own), self._told(stored)
            if ours != theirs:
                raise ShapeError("weights", f"those of {ours}", described(f"those of {theirs}"))
        super().load_own_variables(store)

    def _told(self, shapes: list[tuple[int, ...]]) -> str:
        """The geometry, as text, of a layer of this kind whose weights have these shapes."""
        low_rank = len(shapes) > 1 and len(shapes[0]) == 2 * self.ndim + 3
        return geometry_told(*shapes[: 1 + low_rank])

    def _penalty(self, weights: Any) -> Array:
        """The penalty of the kernel. A variable must carry it; with a rank, the coefficients do."""
        kernel = weights if self.rank is None else _mixed(self.basis, weights)
        if not isinstance(self.kernel_regularizer, SheetSmoothness):
            return self.kernel_regularizer(kernel)
        bias = self.bias if self._bias_shape() == self.spec.bias_shape else None
        return self.kernel_regularizer(kernel, bias, self.spec)

    def full_kernel(self) -> Array:
        """The weights of every position, ``spec.kernel_shape``; also of a low-rank layer."""
        if self.rank is None:
            return tensor_of(self.kernel)
        return _mixed(self.basis, self.coefficients)

    def share_(self, axes: Any = None) -> Self:
        """Replace weights (with a rank, coefficients) by their mean over positions, in place.

        Every few training steps, this keeps a layer near a convolution.

        Parameters
        ----------
        axes : tuple of int, optional
            Spatial axes to average along; None takes all.

        Returns
        -------
        The layer itself.
        """
        over = tuple(range(self.ndim)) if axes is None else self.spec.sharing(axes).shared_axes
        for each in (self.kernel if self.rank is None else self.coefficients, self.bias):
            if each is not None and over:
                mean = ops.mean(each, axis=over, keepdims=True)
                each.assign(ops.broadcast_to(mean, each.shape))
        return self

    def _cast(self, *arrays: Array) -> tuple[Array, ...]:
        """Cast inputs and variables to the dtype of the computation."""
        return tuple(tensor_of(each, self.compute_dtype) for each in arrays)

    def _arguments(self) -> dict[str, Any]:
        """Keyword arguments for all operations of lcmulti."""
        backend = keras.config.backend()
        # The named implementation, if the backend has it: a model may move to another backend.
        has = (backend, self.implementation) in plugins.registry().implementations
        return {
            "strides": self.strides,
            "dilation": self.dilation_rate,
            "groups": self.groups,
            "data_format": self.data_format,
            "backend": backend,
            "implementation": self.implementation if has else "auto",
        }

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

    @classmethod
    def from_conv(
        cls, conv: keras.layers.Layer, input_shape: Sequence[int], **changes: Any
    ) -> Self:
        """A layer that computes what *conv* does; in training, its positions may become different.

        Parameters
        ----------
        conv : keras.layers.Layer
            A convolution of the same number of axes that is built (``Conv2D``; for a transposed
            layer ``Conv2DTranspose``).
        input_shape : tuple of int
            Shape of one sample, as ``input_shape=`` of a layer.
        **changes
            Arguments of the new layer that differ from those of the convolution.

        Returns
        -------
        The new layer, built, with the convolution's weights at every position.

        Raises
        ------
        ArgumentError
            If *conv* is another layer or is not built, or does not take *input_shape*.
        """
        return layer_of_conv(cls, conv, input_shape, changes)

    def to_conv(self, tolerance: float | None = 0.0) -> keras.layers.Layer:
        """The convolution this layer is, or (*tolerance* None) the mean over positions.

        Parameters
        ----------
        tolerance : float or None, default 0
            Largest difference of a weight between two positions.

        Returns
        -------
        keras.layers.Layer
            ``Conv2D`` and its like, built; ``DepthwiseConv2D`` where each channel is a group.

        Raises
        ------
        ArgumentError
            If the layer is not built, weights differ more between positions (with how far), or
            the padding or the groups are such as no convolution of Keras has.
        """
        return conv_of_layer(self, tolerance)


def _mixed(basis: Array, coefficients: Array) -> Array:
    backend = keras.config.backend()
    return lcmulti.low_rank_kernel(tensor_of(basis), tensor_of(coefficients), backend=backend)
