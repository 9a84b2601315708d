"""The hooks a plugin may implement, under the entry point group ``lcmulti``."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from lcmulti.plugins.contract import BackendEntry, ImplementationEntry

__all__ = ["lcmulti_backends", "lcmulti_implementations"]

hookspec = pluggy.HookspecMarker("lcmulti")


@hookspec
def lcmulti_backends() -> Iterable[BackendEntry]:  # type: ignore[empty-body]
    """Return the backends this plugin adds."""


@hookspec
def lcmulti_implementations() -> Iterable[ImplementationEntry]:  # type: ignore[empty-body]
    """Return the implementations this plugin adds, to its own or to others' backends."""
