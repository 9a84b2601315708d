"""What people use in TensorFlow, channels last."""

from __future__ import annotations

from functools import partial
from typing import Any

import tensorflow as tf

from lcmulti.bench.contenders import Contender
from lcmulti.bench.workloads import Arrays
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.types import Array
from lcmulti.weights.layouts import export_kernel

__all__ = ["eir_einsum", "keras_1", "keras_2", "keras_3"]


def _keras(implementation: int, arrays: Arrays) -> Contender:
    """tf_keras' ``LocallyConnected1D`` and ``2D``, in one of their implementations.

    Padding is applied before the layer: implementation 1 has none, and the others have another
    rule.
    """
    import tf_keras

    spec = arrays.spec
    layers = tf_keras.layers
    layer = (layers.LocallyConnected1D, layers.LocallyConnected2D)[spec.ndim - 1](
        spec.filters, spec.kernel_size, spec.strides, use_bias=False,
        implementation=implementation, dtype=arrays.dtype.name,
    )  # fmt: skip
    inner = LocalConvSpec(
        (*spec.padded_size, spec.in_channels), spec.filters, spec.kernel_size,
        strides=spec.strides, data_format="channels_last",
    )  # fmt: skip
    layer.build((arrays.batch, *inner.input_shape))
    stored = export_kernel(arrays.kernel, f"keras2-{implementation}", inner)
    layer.set_weights([stored.reshape(layer.get_weights()[0].shape)])
    pairs = [(0, 0), *spec.padding, (0, 0)]

    def function(x: Array, weights: Any) -> Any:
        return layer(tf.pad(x, pairs) if any(map(any, pairs)) else x)

    return Contender(function, arrays.x, layer.trainable_weights[0], arrays.dy)


keras_1, keras_2, keras_3 = (partial(_keras, n) for n in (1, 2, 3))


def eir_einsum(arrays: Arrays) -> Contender:
    """EIR's LCL, where windows tile one channel."""
    spec = arrays.spec

    def function(x: Array, weights: Any) -> Any:
        seen = tf.reshape(x, (arrays.batch, *spec.output_size, -1))
        return tf.einsum("nhw,ohw->nho", seen, weights)

    return Contender(function, arrays.x, export_kernel(arrays.kernel, "eir", spec), arrays.dy)
