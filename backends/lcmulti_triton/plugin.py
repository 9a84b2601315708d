"""Registers the Triton kernels with the PyTorch backend; neither PyTorch nor Triton is imported."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from lcmulti.plugins.contract import ImplementationEntry

hookimpl = pluggy.HookimplMarker("lcmulti")


@hookimpl
def lcmulti_implementations() -> Iterable[ImplementationEntry]:
    """One, ahead of all but PyTorch's convolution for kernels that all positions share."""
    yield ImplementationEntry(
        name="triton",
        backend="torch",
        load="lcmulti_triton.implementation:implementation",
        summary="fused Triton kernels for GPUs: no patches in memory, weights read once",
        priority=39,
        dtypes=("float16", "bfloat16", "float32", "float64"),
        devices=("gpu", "cpu"),
        # To PyTorch's compiler its maps are operations with derivatives; it declines the rest.
        transformable=True,
    )
