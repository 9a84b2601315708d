"""Derivative rules, closed once for every implementation.

The operation is linear in each argument, so the gradient of each of the three maps is made of
the other two, and derivatives of every order of these three again. `tf.custom_gradient` calls
that refer to each other say so, and `tf.autodiff.ForwardAccumulator` transposes them.

TensorFlow's gradient of a holomorphic function is the conjugate of its derivative times what
comes from above, hence the conjugates (of a real tensor, `tf.math.conj` is the tensor itself).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import forwardprop_util  # nothing public says who is watching
from tensorflow.python.pywrap_tfe import TFE_Py_TapeSetPossibleGradientTypes as watchers

from lcmulti.backend import Implementation, Operation, Resources
from lcmulti.spec import LocalConvSpec
from lcmulti_tensorflow.ops import composed

Map = Callable[[Any, Any], Any]


def close(implementation: Implementation) -> Operation:
    """Return ``(x, kernel, spec, resources) -> y``, differentiable to any order."""

    @lru_cache(maxsize=1024)
    def closed(spec: LocalConvSpec, resources: Resources) -> Map:
        return _forward(implementation, spec, resources)

    def operation(x: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        return closed(spec, resources)(x, kernel)

    return operation


def _forward(implementation: Implementation, spec: LocalConvSpec, resources: Resources) -> Map:
    def ruled(name: str, gradients: tuple[Map, Map]) -> Map:
        """One map, given the gradients in its arguments as ``(other argument, from above)``."""
        compute, native = getattr(implementation, name), getattr(composed, name)

        @tf.custom_gradient
        def custom(a: Any, b: Any) -> Any:
            eager = tf.executing_eagerly()  # in a graph, who will ask is known only afterwards
            wanted = [not eager or watchers([each]) for each in (a, b)]

            def gradient(above: Any) -> Any:
                in_a, in_b = gradients
                return (
                    in_a(_conj(b), above) if wanted[0] else None,
                    in_b(_conj(a), above) if wanted[1] else None,
                )

            # A tape that saw what happens inside would keep the patches, for nothing.
            y = compute(tf.stop_gradient(a), tf.stop_gradient(b), spec, resources)
            return y, gradient

        def map_(a: Any, b: Any) -> Any:
            # In a graph, a forward accumulator takes the tangents of what happens inside.
            if not tf.executing_eagerly() and forwardprop_util.pack_tangents([a, b]).tangents:
                return native(a, b, spec, resources)
            return custom(a, b)

        return map_

    forward = ruled(
        "forward",
        (lambda kernel, dy: input_grad(dy, kernel), lambda x, dy: kernel_grad(x, dy)),
    )
    input_grad = ruled(
        "input_grad",
        (lambda kernel, dx: forward(dx, kernel), lambda dy, dx: kernel_grad(dx, dy)),
    )
    kernel_grad = ruled(
        "kernel_grad",
        (lambda dy, dkernel: input_grad(dy, dkernel), lambda x, dkernel: forward(x, dkernel)),
    )
    return forward


def _conj(array: Any) -> Any:
    array = tf.math.conj(array)
    # A tensor of the graph the gradient is in: TensorFlow miscounts those of an outer one.
    return array if tf.executing_eagerly() else tf.identity(array)
