"""The door for JAX: a custom call through XLA's foreign function interface."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from lcmulti_jax.compat import ffi

from lcmulti import LocalConvSpec
from lcmulti.operations.neighbours import Link
from lcmulti.plugins.contract import Map, Problem, Resources
from lcmulti.types import Array
from lcmulti_native.cosines import SUMS, Cosines, cosine_call
from lcmulti_native.library import (
    Native,
    idle_lanes,
    library,
    packed,
)

TARGET, COSINES = "lcmulti_native", "lcmulti_native_cosines"

ffi.register_ffi_target(COSINES, ffi.pycapsule(library().lcmulti_jax_cosines), platform="cpu")
ffi.register_ffi_target(TARGET, ffi.pycapsule(library().lcmulti_jax), platform="cpu")


class JaxNative(Cosines, Native):
    """`lcmulti.backend.Implementation` for JAX."""

    def decline(self, problem: Problem) -> str | None:
        """Serves batches of a known size that fill its vectors."""
        if problem.batch is None:
            return "the batch is symbolic"
        return idle_lanes(problem) or super().decline(problem)

    def run(self, map_: Map, a: Array, b: Array, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `lcmulti_native.library.Native.run`."""
        batch = a.shape[0]
        shape = {
            "forward": (batch, *spec.output_size, spec.filters),
            "input_grad": (batch, *spec.input_size, spec.in_channels),
            "kernel_grad": spec.kernel_shape,
        }[map_]
        call = packed(map_, spec, batch, a.dtype.name, resources.threads)
        compute = ffi.ffi_call(TARGET, jax.ShapeDtypeStruct(shape, a.dtype))
        return compute(a, b, call=np.array(call, np.int64))

    def run_cosines(
        self, map_: int, a: Array, b: Array, links: tuple[Link, ...], resources: Resources
    ) -> Any:
        """See `lcmulti_native.cosines.Cosines.run_cosines`."""
        shape = (4, *b.shape) if map_ == SUMS else a.shape
        call = cosine_call(map_, a.shape, a.dtype.name, resources.threads, links)
        return ffi.ffi_call(COSINES, jax.ShapeDtypeStruct(shape, a.dtype))(a, b, call=call)


implementation = JaxNative()
