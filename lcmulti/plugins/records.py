"""The records that plugins register: plain data, so that reading them imports nothing."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ALL_DTYPES", "CONTRACT", "BackendEntry", "ImplementationEntry"]

CONTRACT = 1
"""Version of this contract. An entry for another version is refused, in an error that names it."""

ALL_DTYPES = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
"""Every element type; an entry may list fewer."""


@dataclass(frozen=True, slots=True)
class BackendEntry:
    """A backend, as data.

    Parameters
    ----------
    name : str
        The value of ``backend=`` that selects it.
    load : str
        ``"module:attribute"`` of the `Backend`, imported on first use.
    package : str
        Import name of the framework, to find out whether it is installed without importing it.
    array_types : tuple of str
        ``"module:Class"`` of its arrays. Only modules that are imported already are looked at:
        whoever passes a tensor has imported its library.
    install : str
        The command that installs the framework.
    variable_types : tuple of str
        ``"module:Class"`` of objects that hold one of its arrays, as the parameters of a library
        do. Wherever an array is allowed they are too: `Backend.read` takes the array out.
    dtypes : tuple of str
        Element types it supports.
    capabilities : tuple of str
        Any of ``"reverse"`` (`Backend.vjp`) and ``"forward"`` (`Backend.jvp`), each to any order
        and nested in the other, and ``"fork"`` (a child forked after use can still compute).
    contract : int
        The `CONTRACT` it is written for.
    """

    name: str
    load: str
    package: str
    array_types: tuple[str, ...]
    install: str
    variable_types: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ALL_DTYPES
    capabilities: tuple[str, ...] = ("reverse", "forward")
    contract: int = CONTRACT


@dataclass(frozen=True, slots=True)
class ImplementationEntry:
    """An implementation, as data.

    Parameters
    ----------
    name : str
        The value of ``implementation=`` that selects it; unique within its backend.
    backend : str
        Name of the backend whose arrays it computes on.
    load : str
        ``"module:attribute"`` of the `Implementation`, imported on first use.
    summary : str
        One line that tells a user what it does.
    priority : int
        ``implementation="auto"`` takes the implementation of highest priority that serves a call.
    dtypes : tuple of str
        Element types it computes in.
    devices : tuple of str
        Kinds of device it runs on; empty for any.
    transformable : bool
        Whether the framework may trace its maps and apply its transforms to them.
    portable : bool
        Whether its maps are made of the framework's own operations alone, so that what is traced
        of them runs in a process without this distribution.
    contract : int
        The `CONTRACT` it is written for.
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
