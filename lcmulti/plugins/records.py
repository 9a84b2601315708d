"""What a plugin registers, as data: nothing is imported to read it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ALL_DTYPES", "CONTRACT", "BackendEntry", "ImplementationEntry"]

CONTRACT = 1
"""Version of this contract; an entry written for another version is refused by name."""

ALL_DTYPES = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
"""Every element type; an entry may name fewer."""


@dataclass(frozen=True, slots=True)
class BackendEntry:
    """A backend, as data.

    Parameters
    ----------
    name : str
        What ``backend=`` takes.
    load : str
        ``"module:attribute"`` of the `Backend`, imported on first use.
    package : str
        Import name of the framework; whether it is installed is asked without importing it.
    array_types : tuple of str
        ``"module:Class"`` of the arrays that belong to it, looked up in modules that are
        imported already: whoever passes a tensor has imported its library.
    install : str
        The command that installs the framework.
    dtypes : tuple of str
        Element types it has.
    capabilities : tuple of str
        Of ``"reverse"`` (`Backend.vjp`) and ``"forward"`` (`Backend.jvp`), each to any order and
        within the other, and ``"fork"`` (a child forked after use may go on computing).
    contract : int
        The `CONTRACT` it was written for.
    """

    name: str
    load: str
    package: str
    array_types: tuple[str, ...]
    install: str
    dtypes: tuple[str, ...] = ALL_DTYPES
    capabilities: tuple[str, ...] = ("reverse", "forward")
    contract: int = CONTRACT


@dataclass(frozen=True, slots=True)
class ImplementationEntry:
    """An implementation, as data.

    Parameters
    ----------
    name : str
        What ``implementation=`` takes; unique within its backend.
    backend : str
        Name of the backend whose arrays it computes on.
    load : str
        ``"module:attribute"`` of the `Implementation`, imported on first use.
    summary : str
        One line that tells a user what it does.
    priority : int
        ``implementation="auto"`` takes the highest that serves the call.
    dtypes : tuple of str
        Element types it computes in.
    devices : tuple of str
        Device kinds it runs on; empty for any.
    transformable : bool
        Whether the framework may trace its maps and apply its transforms to them.
    portable : bool
        Whether its maps are made of the framework's own operations alone, so that what is traced
        of them runs in a process without this distribution.
    contract : int
        The `CONTRACT` it was written for.
    """

    name: str
    backend: str
    load: str
    summary: str
    priority: int = 0
    dtypes: tuple[str, ...] = ALL_DTYPES
    devices: tuple[str, ...] = ()
    transformable: bool = False
    portable: bool = False
    contract: int = CONTRACT
