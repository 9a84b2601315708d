"""Collect the entries of all installed plugins, report clashes, and load what is asked for.

Entry points are loaded one by one. So a broken plugin is listed with its error, and the others
work. No hook is ``firstresult``: pluggy calls the plugin that was registered last first, so the
order of installation would silently decide between two plugins.
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
    """All entries by name, with their origins, and the errors of broken plugins."""

    backends: dict[str, BackendEntry] = field(default_factory=dict)
    implementations: dict[tuple[str, str], ImplementationEntry] = field(default_factory=dict)
    origins: dict[object, Origin] = field(default_factory=dict)
    errors: dict[Origin, Exception] = field(default_factory=dict)

    def implementations_of(self, backend: str) -> list[ImplementationEntry]:
        """Implementations of a backend, in the order in which ``auto`` prefers them."""
        entries = [e for (owner, _), e in self.implementations.items() if owner == backend]
        return sorted(entries, key=lambda entry: (-entry.priority, entry.name))

    def add(
        self, origin: Origin, backends: Iterable[object], implementations: Iterable[object]
    ) -> None:
        """Add one plugin's entries; none of them, if one is wrong."""
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


def _checked(entries: Iterable[object], kind: type[Entry]) -> list[Entry]:
    checked: list[Entry] = []
    for entry in entries:
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
        # Callers may write names in any case, and "auto" is not a name.
        if entry.name in ("", "auto") or entry.name != entry.name.lower():
            raise PluginError(f"expected a lower-case name other than 'auto', got {entry.name!r}")
        checked.append(entry)
    return checked


@cache
def registry() -> Registry:
    """Read the entry points of group ``lcmulti``; no framework is imported."""
    from importlib import metadata  # imported late, because it imports much

    found = Registry()
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda point: point.name):
        distribution = point.dist
        origin = Origin(
            point.value,
            distribution.name if distribution else "unknown",
            distribution.version if distribution else "unknown",
        )
        try:
            # One manager for each plugin tells which entries are its own.
            manager = pluggy.PluginManager(GROUP)
            manager.add_hookspecs(hookspecs)
            manager.register(point.load(), name=point.name)
            manager.check_pending()  # otherwise a misspelled hook would silently add nothing
            found.add(
                origin,
                _flat(manager.hook.lcmulti_backends()),
                _flat(manager.hook.lcmulti_implementations()),
            )
        # Third-party code may raise anything; it must not stop the others.
        except Exception as error:
            found.errors[origin] = error
    return found


def _flat(results: Iterable[Iterable[Any]]) -> list[Any]:
    return [entry for result in results for entry in result]


def is_installed(entry: BackendEntry) -> bool:
    """Whether the framework of a backend is installed, without importing it."""
    try:
        return importlib.util.find_spec(entry.package) is not None
    except (ImportError, ValueError):
        return False


def framework_version(entry: BackendEntry) -> str | None:
    """Version of the distribution that provides a backend's framework, or None."""
    from importlib import metadata

    with suppress(metadata.PackageNotFoundError):
        # Most distributions have the name of their package; searching all of them is slow.
        return metadata.version(entry.package)
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
    """A function that returns a context in which a backend places new arrays on a kind of device.

    Raises
    ------
    ArgumentError
        If the backend has no such device.
    """
    owner = load_backend(backend)
    came = ""
    # Frameworks raise different errors for a missing device.
    with suppress(Exception), owner.on(device):
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
        If it reads a setting whose value is not allowed.
    """
    entry = registry().implementations[backend, name]
    origin = registry().origins[backend, name]
    try:
        loaded = _load(entry.load)
    except ConfigError:  # for the user to correct, so it must not become a PluginError
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
