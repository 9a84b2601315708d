"""Cosines of neighbouring filters, in the maps of an implementation, and their gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import forwardprop_util
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from lcmulti import plugins
from lcmulti.operations.neighbours import CosineMaps, Link, composed
from lcmulti.plugins.contract import Resources

__all__ = ["neighbour_cosines"]


def neighbour_cosines(
    maps: CosineMaps,
    kernel: tf.Tensor,
    bias: tf.Tensor | None,
    links: tuple[Link, ...],
    resources: Resources,
) -> tf.Tensor:
    """See `lcmulti.operations.neighbours.CosineMaps`; TensorFlow's own operations in XLA."""
    own = *kernel.shape[:2], kernel.shape[-1]
    full = tf.zeros(own, kernel.dtype) if bias is None else tf.broadcast_to(bias, own)

    def plain(kernel: tf.Tensor, bias: tf.Tensor) -> Any:
        return composed(plugins.load_backend("tensorflow"), kernel, bias, links)

    # A forward accumulator differentiates the operations inside.
    forward_mode = forwardprop_util.pack_tangents([kernel, full]).tangents
    in_graph = not tf.executing_eagerly()
    in_xla = in_graph and GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())
    if forward_mode or in_xla:
        return plain(kernel, full)

    @tf.custom_gradient
    def cosines(kernel: tf.Tensor, bias: tf.Tensor) -> Any:
        sums = maps.cosine_sums(tf.stop_gradient(kernel), tf.stop_gradient(bias), links, resources)

        @tf.custom_gradient
        def slopes(above: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> Any:
            zero = tf.zeros_like(above)
            scaled = sums * tf.stack([above, zero + 1, above, zero])[:, None, None, None]
            arrays = kernel, bias[..., None, :]
            of_kernel, of_bias = (
                maps.cosine_slopes(tf.stop_gradient(each), scaled, links, resources)
                for each in arrays
            )
            found = of_kernel, tf.squeeze(of_bias, -2)
            return found, _of_slopes(plain, (above, kernel, bias))

        return tf.reduce_sum(sums[3]) / 2, lambda above: slopes(above, kernel, bias)

    return cosines(kernel, full)


def _of_slopes(
    plain: Callable[..., Any], arrays: tuple[tf.Tensor, ...]
) -> Callable[..., list[tf.Tensor]]:
    """The gradient of the gradient: that of TensorFlow's own operations."""

    def gradient(*above: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(arrays)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(arrays[1:])
                value = arrays[0] * plain(*arrays[1:])
            slopes = inner.gradient(value, arrays[1:])
        found: list[tf.Tensor] = outer.gradient(slopes, arrays, above)
        return found

    return gradient
