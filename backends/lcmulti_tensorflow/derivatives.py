"""The derivative rules in TensorFlow, written once for every implementation.

The operation is linear in each argument. So the gradients of each of the three maps are the other
two, and derivatives of every order consist of these three maps. `tf.custom_gradient` functions that
refer to each other implement this, and `tf.autodiff.ForwardAccumulator` transposes them.

TensorFlow's gradient of a holomorphic function is the conjugate of its derivative, times the
gradient of its result; hence the conjugates. (For a real tensor, `tf.math.conj` returns the tensor
itself.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import (
    forwardprop_util,  # there is no public way to find out which tapes are recording
)
from tensorflow.python.pywrap_tfe import TFE_Py_TapeSetPossibleGradientTypes as watchers

from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import DERIVATIVES, Implementation, Map, Operation, Resources
from lcmulti_tensorflow.composed import composed
from lcmulti_tensorflow.precision import refuse_rounding

Pair = Callable[[Any, Any], Any]


def close(implementation: Implementation, name: Map = "forward") -> Operation:
    """Make one map, ``(x, kernel, spec, resources) -> y``, differentiable to any order."""

    @lru_cache(maxsize=1024)
    def closed(spec: LocalConvSpec, resources: Resources) -> Pair:
        return _maps(implementation, spec, resources)[name]

    def operation(
        x: tf.Tensor, kernel: tf.Tensor, spec: LocalConvSpec, resources: Resources
    ) -> tf.Tensor:
        return closed(spec, resources)(x, kernel)

    return operation


def _maps(
    implementation: Implementation, spec: LocalConvSpec, resources: Resources
) -> dict[Map, Pair]:
    def ruled(name: Map) -> Pair:
        compute, native = getattr(implementation, name), getattr(composed, name)

        @tf.custom_gradient
        def custom(a: tf.Tensor, b: tf.Tensor) -> Any:
            # In a graph, it is unknown at this point whether a gradient will be needed.
            graph = not tf.executing_eagerly()
            wanted = [graph or watchers([each]) for each in (a, b)]

            def gradient(above: Any) -> list[tf.Tensor]:
                def operand(letter: str) -> Any:
                    return above if letter == "g" else _conj(a if letter == "a" else b)

                return [
                    maps[rule](*map(operand, letters)) if asked else None
                    for (rule, letters), asked in zip(DERIVATIVES[name], wanted, strict=True)
                ]

            # A tape that records the operations inside would keep the patches without need.
            return compute(tf.stop_gradient(a), tf.stop_gradient(b), spec, resources), gradient

        def map_(a: tf.Tensor, b: tf.Tensor) -> Any:
            refuse_rounding(a)
            # In a graph, a forward accumulator differentiates the operations inside.
            if not tf.executing_eagerly() and forwardprop_util.pack_tangents([a, b]).tangents:
                return native(a, b, spec, resources)
            return custom(a, b)

        return map_

    maps = {name: ruled(name) for name in DERIVATIVES}
    return maps


def _conj(array: tf.Tensor) -> tf.Tensor:
    array = tf.math.conj(array)
    # Must be a tensor of the gradient's own graph: TensorFlow counts those of an outer one wrongly.
    return array if tf.executing_eagerly() else tf.identity(array)
