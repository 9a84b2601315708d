"""Registers the PyTorch backend, without importing PyTorch."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from lcmulti.plugins.contract import BackendEntry, ImplementationEntry

hookimpl = pluggy.HookimplMarker("lcmulti")


@hookimpl
def lcmulti_backends() -> Iterable[BackendEntry]:
    """PyTorch."""
    yield BackendEntry(
        name="torch",
        load="lcmulti_torch.backend:backend",
        package="torch",
        array_types=("torch:Tensor", "torch.fx:Proxy"),
        install="pip install 'lcmulti[torch]'",
        variable_types=("keras.src.backend.torch:Variable",),
    )


@hookimpl
def lcmulti_implementations() -> Iterable[ImplementationEntry]:
    """The implementations, from the most special to the most general."""
    yield ImplementationEntry(
        name="conv",
        backend="torch",
        load="lcmulti_torch.convolution:conv",
        summary="one kernel shared by all positions: PyTorch's own convolution",
        priority=40,
        dtypes=("float16", "bfloat16", "float32", "float64"),
        transformable=True,
        portable=True,
    )
    yield ImplementationEntry(
        name="elementwise",
        backend="torch",
        load="lcmulti_torch.elementwise:elementwise",
        summary="windows of few weights: products of whole planes",
        priority=35,
        # Not complex: PyTorch rounds those by where they are in an array, and a part of a layer
        # would differ from the whole in the last bit.
        dtypes=("float32", "float64"),
        devices=("cpu",),
    )
    yield ImplementationEntry(
        name="disjoint",
        backend="torch",
        load="lcmulti_torch.disjoint:disjoint",
        summary="windows that tile the input: a view and one batched product, no patches",
        priority=30,
        transformable=True,
        portable=True,
    )
    yield ImplementationEntry(
        name="blocked",
        backend="torch",
        load="lcmulti_torch.blocked:blocked",
        summary="patches of one block of positions at a time, batched matrix products",
        priority=20,
    )
    yield ImplementationEntry(
        name="composed",
        backend="torch",
        load="lcmulti_torch.composed:composed",
        summary="all patches at once, in operations that every transform can see",
        priority=10,
        transformable=True,
        portable=True,
    )
