"""Which backend computes: the named one, that of the arrays, or the configured one."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from lcmulti import plugins
from lcmulti.choosing.settings import current
from lcmulti.errors import ArgumentTypeError, MixedFrameworksError, described
from lcmulti.geometry.arguments import choice

__all__ = ["ARGUMENTS", "NUMPY", "backend_of", "read", "readers_of"]

NUMPY = "numpy"
ARGUMENTS = ("x", "kernel", "bias")


def backend_of(
    kinds: tuple[type, ...],
    backend: str | None,
    default: str | None = None,
    names: tuple[str, ...] = ARGUMENTS,
) -> tuple[str, bool]:
    """Name of the backend that computes on arrays of these types, and whether all are NumPy's.

    The *backend* of the call; else the framework the arrays belong to; else *default*. NumPy arrays
    may be converted to any framework. All other arrays stay in theirs.

    Parameters
    ----------
    kinds : tuple of type
        Types of the arrays; ``NoneType`` where there is no bias.
    default : str, optional
        None for the configured backend.
    names : tuple of str
        Names of the arguments, for errors.

    Raises
    ------
    MixedFrameworksError
        If the arrays belong to two frameworks, or *backend* names another framework than theirs.
    ArgumentTypeError
        If an argument is not an array of a registered backend.
    """
    name, neutral = _named(kinds, backend, names)
    # Settings are read for NumPy arrays only: reading them takes as long as all the rest.
    return name or default or current().backend, neutral


@lru_cache(maxsize=1024)
def _named(
    kinds: tuple[type, ...], backend: str | None, names: tuple[str, ...]
) -> tuple[str | None, bool]:
    """The same, but None where neither the types nor *backend* decide."""
    owner: tuple[str, str] | None = None
    for argument, kind in zip(names, kinds, strict=True):
        if argument == "bias" and kind is type(None):
            continue
        framework, _ = _framework_of(kind)
        if framework is None:
            known = ", ".join(plugins.registry().backends)
            shown = described(f"{kind.__module__}.{kind.__qualname__}")
            raise ArgumentTypeError(argument, f"an array of one of {known}", shown)
        if framework == NUMPY:
            continue
        if owner is not None and owner[1] != framework:
            raise MixedFrameworksError(
                argument,
                f"an array of {owner[1]}, as {owner[0]} is",
                described(f"one of {framework}; convert one of them"),
            )
        owner = owner or (argument, framework)
    if backend is None:
        return (None, True) if owner is None else (owner[1], False)
    chosen = choice("backend", backend, plugins.registry().backends)
    if owner is not None and owner[1] != chosen:
        raise MixedFrameworksError(
            "backend",
            f"{owner[1]!r}, the framework of {owner[0]}",
            described(f"{backend!r}; tensors are never moved to another framework silently"),
        )
    return chosen, owner is None


@lru_cache(maxsize=1024)
def readers_of(kinds: tuple[type, ...]) -> tuple[str, ...]:
    """For each type, the backend that reads it, or "" if it is no variable's; () if none is one."""
    found = [_framework_of(kind) for kind in kinds]
    readers = tuple(name if name and is_variable else "" for name, is_variable in found)
    return readers if any(readers) else ()


def read(arrays: Sequence[Any], readers: Sequence[str]) -> list[Any]:
    """The arrays that variables among these hold, and the others as they are."""
    return [
        plugins.load_backend(reader).read(array) if reader else array
        for array, reader in zip(arrays, readers or [""] * len(arrays), strict=True)
    ]


def _framework_of(kind: type) -> tuple[str | None, bool]:
    """Find the backend of a type, and whether the type is one of its variables."""
    for name, entry in plugins.registry().backends.items():
        if _is_one_of(kind, entry.array_types):
            return name, False
        if _is_one_of(kind, entry.variable_types):
            return name, True
    return None, False


def _is_one_of(kind: type, references: Iterable[str]) -> bool:
    """Whether *kind* is a class that a reference, ``"module:class"``, names, or a subclass.

    Only modules that are imported already are looked at.
    """
    for reference in references:
        module, _, path = reference.partition(":")
        known: object = sys.modules.get(module)
        for attribute in path.split("."):
            known = getattr(known, attribute, None)
        if isinstance(known, type) and issubclass(kind, known):
            return True
    return False
