"""The base of the layers and of the transposed layers: weights, and their sharing."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import TYPE_CHECKING, Any, ClassVar, Self

import keras
from keras import initializers, ops

import lcmulti
from lcmulti import plugins
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.operations.sheet import sheet_on
from lcmulti.types import Array
from lcmulti_keras.advising import require_own_geometry, require_own_layout
from lcmulti_keras.arguments import require_fitting, sample_shape
from lcmulti_keras.configured import Configured
from lcmulti_keras.conversion import conv_of_layer, layer_of_conv
from lcmulti_keras.initializers import kernel_initializer as adapted
from lcmulti_keras.smoothness import SheetSmoothness
from lcmulti_keras.variables import tensor_of

__all__ = ["LocallyConnectedBase"]

if TYPE_CHECKING:  # `keras.Variable` is chosen as Keras starts, so no tool knows its class
    from keras.src.backend.common.variables import Variable


class LocallyConnectedBase(Configured):
    """A layer with weights and a geometry.

    Attributes
    ----------
    spec : LocalConvSpec
        The geometry, once the layer is built; for a transposed layer, that of the operation it is
        the adjoint of.
    kernel : keras.Variable or None
        ``spec.kernel_shape``. With *rank*, there are ``basis`` and ``coefficients`` instead.
    bias : keras.Variable or None
    """

    convolution: ClassVar[str]
    """Name of the layer of Keras that this one is, shared along all axes."""
    spec: LocalConvSpec
    kernel: Variable
    basis: Variable
    coefficients: Variable
    bias: Variable | None

    if TYPE_CHECKING:

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """A tensor of Keras' backend, or a `keras.KerasTensor` for one."""
            ...

    def _sample_shape(self, input_shape: Any) -> tuple[int, ...]:
        return sample_shape(input_shape, self.ndim, type(self).__name__)

    def _require_fitting(self, sample: tuple[int | None, ...]) -> None:
        if self.built:
            require_fitting(sample, self._built_for, self.data_format)

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
        if isinstance(self.kernel_regularizer, SheetSmoothness):
            sheet_on(spec, self.kernel_regularizer.sheet)
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
        require_own_layout(self, stored)
        require_own_geometry(self, stored)
        super().load_own_variables(store)

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

    def share_(self, axes: Sequence[int] | None = None) -> Self:
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
        over = self.spec.axes_to_average(axes)
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
        """The convolution equal to this layer, or with *tolerance* None the mean over positions.

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
            If the layer is not built, weights differ more between positions (the message says by
            how much), or no convolution of Keras has this padding or these groups.
        """
        return conv_of_layer(self, tolerance)


def _mixed(basis: Array, coefficients: Array) -> Array:
    backend = keras.config.backend()
    return lcmulti.low_rank_kernel(tensor_of(basis), tensor_of(coefficients), backend=backend)
