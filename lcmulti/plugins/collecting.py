"""Collect the entries of all installed plugins, report clashes, load what is asked for.

Entry points are loaded one by one, so a broken plugin is listed with its error and the others
work. Hooks are collected, never ``firstresult``: pluggy calls the last registered plugin first,
and whichever was installed last would win in silence.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import numpy as np
import pluggy

from lcmulti.errors import ArgumentError, ConfigError, MissingBackendError, PluginError
from lcmulti.plugins import hookspecs
from lcmulti.plugins.contract import (
    CONTRACT,
    Backend,
    BackendEntry,
    Implementation,
    ImplementationEntry,
)

__all__ = ["GROUP", "Registry", "load_backend", "load_implementation", "placement", "registry"]

GROUP = "lcmulti"
Entry = TypeVar("Entry", BackendEntry, ImplementationEntry)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an entry came from."""

    plugin: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} ({self.plugin})"


@dataclass
class Registry:
    """All entries, keyed by name, with their origins and the errors met on the way."""

    backends: dict[str, BackendEntry] = field(default_factory=dict)
    implementations: dict[tuple[str, str], ImplementationEntry] = field(default_factory=dict)
    origins: dict[object, Origin] = field(default_factory=dict)
    errors: dict[Origin, Exception] = field(default_factory=dict)

    def implementations_of(self, backend: str) -> list[ImplementationEntry]:
        """Implementations of a backend, the one ``auto`` prefers first."""
        entries = [e for (owner, _), e in self.implementations.items() if owner == backend]
        return sorted(entries, key=lambda entry: (-entry.priority, entry.name))

    def add(self, origin: Origin, backends: Iterable[Any], implementations: Iterable[Any]) -> None:
        """Add one plugin's entries, all of them or, if any is wrong, none."""
        ours: dict[str, BackendEntry] = {}
        theirs: dict[tuple[str, str], ImplementationEntry] = {}
        taken = dict(self.origins)
        for backend in _checked(backends, BackendEntry):
            _claim("backend", backend.name, origin, taken)
            ours[backend.name] = backend
        for entry in _checked(implementations, ImplementationEntry):
            key = entry.backend, entry.name
            _claim("implementation", key, origin, taken)
            theirs[key] = entry
        self.backends |= ours
        self.implementations |= theirs
        self.origins = taken


def _claim(kind: str, key: object, origin: Origin, taken: dict[object, Origin]) -> None:
    if key in taken:
        raise PluginError(
            f"{kind} {key!r} is provided by both {taken[key]} and {origin}; uninstall one of them"
        )
    taken[key] = origin


def _checked(entries: Iterable[Any], kind: type[Entry]) -> list[Entry]:
    checked = list(entries)
    for entry in checked:
        if not isinstance(entry, kind):
            raise PluginError(f"expected a {kind.__name__}, got {entry!r}")
        if entry.contract != CONTRACT:
            raise PluginError(
                f"{entry.name!r} is written for contract {entry.contract}; "
                f"this lcmulti speaks contract {CONTRACT}"
            )
        module, _, attribute = entry.load.partition(":")
        if not module or not attribute:
            raise PluginError(f"{entry.name!r} needs a load='module:attribute', not {entry.load!r}")
        # Callers may write names in any case, and "auto" is no name.
        if entry.name in ("", "auto") or entry.name != entry.name.lower():
            raise PluginError(f"expected a lower-case name other than 'auto', got {entry.name!r}")
    return checked


@cache
def registry() -> Registry:
    """Read the entry points of group ``lcmulti``; no framework is imported."""
    from importlib import metadata  # not before it is needed: it imports much

    found = Registry()
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda point: point.name):
        distribution = point.dist
        origin = Origin(
            point.value,
            distribution.name if distribution else "unknown",
            distribution.version if distribution else "unknown",
        )
        try:
            # One manager a plugin: its entries are then its own, whatever order pluggy calls in.
            manager = pluggy.PluginManager(GROUP)
            manager.add_hookspecs(hookspecs)
            manager.register(point.load(), name=point.name)
            manager.check_pending()  # a misspelled hook would add nothing, in silence
            found.add(
                origin,
                _flat(manager.hook.lcmulti_backends()),
                _flat(manager.hook.lcmulti_implementations()),
            )
        except Exception as error:  # a stranger's code: whatever it raises is its own trouble
            found.errors[origin] = error
    return found


def _flat(results: Iterable[Iterable[Any]]) -> list[Any]:
    return [entry for result in results for entry in result]


def is_installed(entry: BackendEntry) -> bool:
    """Whether the framework of a backend can be found; it is not imported."""
    try:
        return importlib.util.find_spec(entry.package) is not None
    except (ImportError, ValueError):
        return False


def framework_version(entry: BackendEntry) -> str | None:
    """Version of the distribution that provides a backend's framework, or None."""
    from importlib import metadata

    with suppress(metadata.PackageNotFoundError):
        return metadata.version(entry.package)  # most have its name; to read all of them is slow
    for name in metadata.packages_distributions().get(entry.package, ()):
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return None


@cache
def load_backend(name: str) -> Backend:
    """Import a backend and its framework.

    Raises
    ------
    MissingBackendError
        If the framework is not installed (with the command that installs it) or broken.
    """
    entry = registry().backends[name]
    if not is_installed(entry):
        raise MissingBackendError(
            f"backend {name!r} needs {entry.package!r}, which is not installed; "
            f"install it with: {entry.install}"
        )
    try:
        return _load(entry.load)  # type: ignore[no-any-return]
    except Exception as error:
        raise MissingBackendError(
            f"backend {name!r} from {registry().origins[name]} could not be loaded "
            f"({type(error).__name__}: {error}); reinstall it with: {entry.install}"
        ) from error


def placement(backend: str, device: str) -> Callable[[], AbstractContextManager[Any]]:
    """How to make a backend place new arrays on a kind of device.

    Raises
    ------
    ArgumentError
        If it cannot.
    """
    owner = load_backend(backend)
    came = ""
    with suppress(Exception), owner.on(device):  # whatever a framework says of no such device
        came = owner.facts(owner.from_numpy(np.zeros((1, 1), "float32"))).device
    if came == device:
        return lambda: owner.on(device)
    known = ", ".join(owner.devices())
    raise ArgumentError("device", f"a kind of device that {backend!r} has ({known})", device)


@cache
def load_implementation(backend: str, name: str) -> Implementation:
    """Import an implementation and check that it has the three maps.

    Raises
    ------
    PluginError
        If it cannot be imported, or lacks one of the methods of `Implementation`.
    ConfigError
        If it reads a setting that cannot be.
    """
    entry = registry().implementations[backend, name]
    origin = registry().origins[backend, name]
    try:
        loaded = _load(entry.load)
    except ConfigError:  # the user's to mend, not to be passed over
        raise
    except Exception as error:
        raise PluginError(
            f"implementation {name!r} of {backend!r} from {origin} could not be loaded "
            f"({type(error).__name__}: {error})"
        ) from error
    if not isinstance(loaded, Implementation):
        raise PluginError(
            f"implementation {name!r} of {backend!r} from {origin} lacks one of decline, "
            "workspace, forward, input_grad, kernel_grad"
        )
    return loaded


def _load(reference: str) -> Any:
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)
