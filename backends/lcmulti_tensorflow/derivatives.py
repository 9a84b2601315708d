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

from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import DERIVATIVES, Implementation, Map, Operation, Resources
from lcmulti_tensorflow.composed import composed, refuse_rounding

Pair = Callable[[Any, Any], Any]


def close(implementation: Implementation, name: Map = "forward") -> Operation:
    """Return one map, ``(x, kernel, spec, resources) -> y``, differentiable to any order."""

    @lru_cache(maxsize=1024)
    def closed(spec: LocalConvSpec, resources: Resources) -> Pair:
        return _maps(implementation, spec, resources)[name]

    def operation(x: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        return closed(spec, resources)(x, kernel)

    return operation


def _maps(
    implementation: Implementation, spec: LocalConvSpec, resources: Resources
) -> dict[Map, Pair]:
    def ruled(name: Map) -> Pair:
        compute, native = getattr(implementation, name), getattr(composed, name)

        @tf.custom_gradient
        def custom(a: Any, b: Any) -> Any:
            # In a graph, who asks for a gradient is known only afterwards.
            graph = not tf.executing_eagerly()
            wanted = [graph or watchers([each]) for each in (a, b)]

            def gradient(above: Any) -> list[Any]:
                def operand(letter: str) -> Any:
                    return above if letter == "g" else _conj(a if letter == "a" else b)

                return [
                    maps[rule](*map(operand, letters)) if asked else None
                    for (rule, letters), asked in zip(DERIVATIVES[name], wanted, strict=True)
                ]

            # A tape that saw what happens inside would keep the patches, for nothing.
            return compute(tf.stop_gradient(a), tf.stop_gradient(b), spec, resources), gradient

        def map_(a: Any, b: Any) -> Any:
            refuse_rounding(a)
            # In a graph, a forward accumulator takes the tangents of what happens inside.
            if not tf.executing_eagerly() and forwardprop_util.pack_tangents([a, b]).tangents:
                return native(a, b, spec, resources)
            return custom(a, b)

        return map_

    maps = {name: ruled(name) for name in DERIVATIVES}
    return maps


def _conj(array: Any) -> Any:
    array = tf.math.conj(array)
    # A tensor of the graph the gradient is in: TensorFlow miscounts those of an outer one.
    return array if tf.executing_eagerly() else tf.identity(array)
