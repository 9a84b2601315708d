"""Registers the NumPy backend through the entry point that any plugin uses."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from lcmulti.plugins.contract import BackendEntry, ImplementationEntry

hookimpl = pluggy.HookimplMarker("lcmulti")


@hookimpl
def lcmulti_backends() -> Iterable[BackendEntry]:
    """NumPy."""
    yield BackendEntry(
        name="numpy",
        load="lcmulti.numpy.backend:backend",
        package="numpy",
        array_types=("numpy:ndarray",),
        variable_types=("keras.src.backend.numpy:Variable",),
        install="pip install lcmulti",
        capabilities=("fork",),
    )


@hookimpl
def lcmulti_implementations() -> Iterable[ImplementationEntry]:
    """The blocked implementation, and the reference itself."""
    yield ImplementationEntry(
        name="blocked",
        backend="numpy",
        load="lcmulti.numpy.backend:blocked",
        summary="patches of one block of positions at a time, batched matrix products",
        priority=20,
    )
    yield ImplementationEntry(
        name="reference",
        backend="numpy",
        load="lcmulti.numpy.backend:reference_implementation",
        summary="the definition of correct, one tap at a time",
    )
