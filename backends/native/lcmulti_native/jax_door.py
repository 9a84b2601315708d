"""JAX's door: a custom call, by XLA's foreign function interface."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from lcmulti import LocalConvSpec
from lcmulti.backend import Problem, Resources
from lcmulti_native.library import Native, library, packed

TARGET = "lcmulti_native"

jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(library().lcmulti_jax), platform="cpu")


class JaxNative(Native):
    """`lcmulti.backend.Implementation` for JAX."""

    def decline(self, problem: Problem) -> str | None:
        """Serves batches of a known size."""
        if problem.batch is None:
            return "the batch is symbolic"
        return super().decline(problem)

    def forward(self, x: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `lcmulti.backend.Implementation.forward`."""
        shape = (x.shape[0], *spec.output_size, spec.filters)
        return _call("forward", x, kernel, shape, spec, resources)

    def input_grad(self, dy: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `lcmulti.backend.Implementation.input_grad`."""
        shape = (dy.shape[0], *spec.input_size, spec.in_channels)
        return _call("input_grad", dy, kernel, shape, spec, resources)

    def kernel_grad(self, x: Any, dy: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `lcmulti.backend.Implementation.kernel_grad`."""
        return _call("kernel_grad", x, dy, spec.kernel_shape, spec, resources)


def _call(
    map_: str, a: Any, b: Any, shape: tuple[int, ...], spec: LocalConvSpec, resources: Resources
) -> Any:
    call = packed(map_, spec, a.shape[0], a.dtype.name, resources.threads)
    compute = jax.ffi.ffi_call(TARGET, jax.ShapeDtypeStruct(shape, a.dtype))
    return compute(a, b, call=np.array(call, np.int64))


implementation = JaxNative()
