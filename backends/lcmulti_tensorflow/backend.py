"""The TensorFlow backend: eager tensors, symbolic tensors of a `tf.function`, and variables."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import tensorflow as tf

from lcmulti.dtypes import DTYPES
from lcmulti.errors import ShapeError
from lcmulti.operations.neighbours import CosineMaps, Link
from lcmulti.plugins.contract import (
    Facts,
    Implementation,
    ImplementationEntry,
    Map,
    Operation,
    Resources,
)
from lcmulti_tensorflow import derivatives
from lcmulti_tensorflow.exporting import is_exporting
from lcmulti_tensorflow.precision import device_of, refuse_rounding


class TensorFlowBackend:
    """`lcmulti.backend.Backend` for TensorFlow."""

    def prepare(self, arrays: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
        """Return *arrays*: TensorFlow has no automatic casts."""
        return arrays

    def read(self, variable: Any) -> tf.Tensor:
        """Read a variable, also a partitioned one, so that a tape records it."""
        return tf.convert_to_tensor(variable)

    def facts(self, array: tf.Tensor, batched: bool = False) -> Facts:
        """See `Backend.facts`; a symbolic tensor may have no batch and no device yet."""
        try:
            shape = tuple(array.shape)
        except ValueError:
            raise ShapeError("x", "a tensor of known rank", array) from None
        return Facts(shape, array.dtype.name, device_of(array), exported=is_exporting())

    def from_numpy(self, array: np.ndarray, like: tf.Tensor | None = None) -> tf.Tensor:
        """See `Backend.from_numpy`."""
        with nullcontext() if like is None else tf.device(like.device):
            return tf.convert_to_tensor(array)

    def to_numpy(self, array: tf.Tensor) -> np.ndarray:
        """See `Backend.to_numpy`."""
        result: np.ndarray = np.asarray(array.numpy())  # a sum over all axes gives a scalar
        return result

    def on(self, device: str) -> AbstractContextManager[Any]:
        """A `tf.device` scope."""
        return tf.device(f"/{device.upper()}:0")

    def move_axis(self, array: tf.Tensor, source: int, destination: int) -> tf.Tensor:
        """See `Backend.move_axis`."""
        axes = list(range(array.shape.rank))
        axes.insert(destination % len(axes), axes.pop(source))
        return tf.transpose(array, axes)

    def take(self, array: tf.Tensor, indices: np.ndarray, axis: int) -> tf.Tensor:
        """See `Backend.take`."""
        return tf.gather(array, indices, axis=axis)

    def add(self, y: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        """Add in the accumulator dtype, so that the gradient of the bias is summed in it."""
        wide = DTYPES[y.dtype.name].accumulator
        return tf.cast(tf.cast(y, wide) + tf.cast(bias, wide), y.dtype)

    def einsum(self, subscripts: str, *arrays: tf.Tensor) -> tf.Tensor:
        """See `Backend.einsum`."""
        refuse_rounding(arrays[0])
        wide = DTYPES[arrays[0].dtype.name].accumulator
        product = tf.einsum(subscripts, *(tf.cast(each, wide) for each in arrays))
        return tf.cast(product, arrays[0].dtype)

    def pair_products(self, kernel: tf.Tensor, pairs: Any) -> list[tf.Tensor]:
        """See `lcmulti_tensorflow.pairs`."""
        from lcmulti_tensorflow.pairs import pair_products

        return pair_products(kernel, pairs)

    def neighbour_cosines(
        self,
        maps: CosineMaps,
        kernel: tf.Tensor,
        bias: tf.Tensor | None,
        links: tuple[Link, ...],
        resources: Resources,
    ) -> tf.Tensor:
        """See `lcmulti_tensorflow.cosines`."""
        from lcmulti_tensorflow.cosines import neighbour_cosines

        return neighbour_cosines(maps, kernel, bias, links, resources)

    def close(
        self, implementation: Implementation, entry: ImplementationEntry, name: Map = "forward"
    ) -> Operation:
        """See `lcmulti_tensorflow.derivatives`."""
        return derivatives.close(implementation, name)

    def opaque(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Nothing traces Python code here."""
        return function

    def devices(self) -> list[str]:
        """See `Backend.devices`."""
        return [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]

    def vjp(
        self, function: Callable[..., Any], arrays: tuple[tf.Tensor, ...], cotangent: tf.Tensor
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        """See `Backend.vjp`; TensorFlow's own gradients are conjugates of these."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            for array in arrays:
                tape.watch(array)
            value = function(*arrays)
        gradients = tape.gradient(value, arrays, tf.math.conj(cotangent))
        return value, tuple(map(tf.math.conj, gradients))

    def jvp(
        self,
        function: Callable[..., Any],
        arrays: tuple[tf.Tensor, ...],
        tangents: tuple[tf.Tensor, ...],
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """See `Backend.jvp`."""
        with tf.autodiff.ForwardAccumulator(arrays, tangents) as accumulator:
            value = function(*arrays)
        return value, accumulator.jvp(value)


backend = TensorFlowBackend()
