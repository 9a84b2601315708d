"""Registers the native kernels with each backend, without loading frameworks or the library."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from lcmulti.plugins.contract import ImplementationEntry

hookimpl = pluggy.HookimplMarker("lcmulti")


@hookimpl
def lcmulti_implementations() -> Iterable[ImplementationEntry]:
    """One for each framework; only its convolution, for shared kernels, has a higher priority."""
    for backend in ("numpy", "torch", "jax", "tensorflow"):
        yield ImplementationEntry(
            name="native",
            backend=backend,
            load=f"lcmulti_native.{backend}_door:implementation",
            summary="C++ kernels that walk the windows in place and stream the weights once",
            priority=38,
            dtypes=("float16", "bfloat16", "float32", "float64"),
            devices=("cpu",),
            # JAX transforms the primitives that close its maps; to PyTorch's compiler they are
            # operations with derivatives, and the rest is declined.
            transformable=backend in ("torch", "jax"),
        )
