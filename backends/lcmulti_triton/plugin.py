"""Registers the Triton kernels with the PyTorch backend, without importing either."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from lcmulti.plugins.contract import ImplementationEntry

hookimpl = pluggy.HookimplMarker("lcmulti")


@hookimpl
def lcmulti_implementations() -> Iterable[ImplementationEntry]:
    """One implementation; only PyTorch's convolution, for shared kernels, has a higher priority."""
    yield ImplementationEntry(
        name="triton",
        backend="torch",
        load="lcmulti_triton.implementation:implementation",
        summary="fused Triton kernels for GPUs: no patches in memory, weights read once",
        priority=39,
        dtypes=("float16", "bfloat16", "float32", "float64"),
        devices=("gpu", "cpu"),
        # Its maps are operations with derivatives for PyTorch's compiler; it declines other
        # transforms.
        transformable=True,
    )
