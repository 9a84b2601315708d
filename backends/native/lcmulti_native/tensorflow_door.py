"""The door for TensorFlow: an operation from a loaded library.

What is exported is composed of TensorFlow's own operations instead; saving traces a function again
that ran with ``LcmultiNative``. A function compiled by XLA (``jit_compile=True``) is composed as
well: XLA knows no operations but its own.
"""

from __future__ import annotations

import sys
from typing import Any

import tensorflow as tf
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from lcmulti import LocalConvSpec, plugins
from lcmulti.operations.neighbours import Link
from lcmulti.plugins.contract import Map, Problem, Resources
from lcmulti.types import Array
from lcmulti_native.cosines import SUMS, Cosines, cosine_call
from lcmulti_native.library import PATH, Native, packed

_operations: Any = None
if sys.platform != "win32":  # TensorFlow cannot load operations there
    _operations = tf.load_op_library(str(PATH.with_name("lcmulti_native_tensorflow.so")))


class TensorFlowNative(Cosines, Native):
    """`lcmulti.backend.Implementation` for TensorFlow."""

    def decline(self, problem: Problem) -> str | None:
        """Serves on systems where TensorFlow can load operations."""
        if _operations is None:
            return "TensorFlow loads no operations on Windows"
        return super().decline(problem)

    def run(self, map_: Map, a: Array, b: Array, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `lcmulti_native.library.Native.run`."""
        return _map(map_, a, b, spec, resources)

    def run_cosines(
        self, map_: int, a: Array, b: Array, links: tuple[Link, ...], resources: Resources
    ) -> Any:
        """See `lcmulti_native.cosines.Cosines.run_cosines`."""
        call = cosine_call(map_, tuple(a.shape), a.dtype.name, resources.threads, links)
        result = _operations.lcmulti_cosines(a=a, b=b, call=call.tolist())
        result.set_shape((4, *b.shape) if map_ == SUMS else a.shape)
        return result


def _map(map_: Map, a: Array, b: Array, spec: LocalConvSpec, resources: Resources) -> Any:
    in_graph = not tf.executing_eagerly()
    if in_graph and GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        composed = plugins.load_implementation("tensorflow", "composed")
        return getattr(composed, map_)(a, b, spec, resources)
    call = packed(map_, spec, 0, a.dtype.name, resources.threads)
    result = _operations.lcmulti_native(a=a, b=b, call=call)
    if in_graph:
        shapes = {"forward": spec.output_shape, "input_grad": spec.input_shape}
        whole = spec.kernel_shape if map_ == "kernel_grad" else (a.shape[0], *shapes[map_])
        result.set_shape(whole)
    return result


implementation = TensorFlowNative()
