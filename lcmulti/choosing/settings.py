"""Where each setting comes from.

In order: the call, ``with lcmulti.config(...)``, ``LCMULTI_*`` variables, ``lcmulti.toml`` or
``[tool.lcmulti]`` of the nearest ``pyproject.toml``, the user's file, keras.json (for
``data_format``), the default. A value only chooses among registered names: no setting can name a
module or a path to import. Files are read once in a process, on first use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from lcmulti.choosing.setting_files import (
    ClosedPlaces,
    is_there,
    keras_json,
    project_table,
    read_toml,
    user_file,
)
from lcmulti.choosing.variables import Variables
from lcmulti.errors import ArgumentError, ConfigError, described, shown
from lcmulti.geometry.arguments import byte_size, choice, integer
from lcmulti.geometry.formats import DATA_FORMATS, read_default_from
from lcmulti.plugins.contract import Resources

__all__ = [
    "DEFAULTS", "SettingChanges", "Settings", "Source", "closed_places", "current", "sources",
    "user_file",
]  # fmt: skip

MEBIBYTE = 2**20
PRECISIONS = ("ieee", "tf32x3")
TILES = ("tuned", "pinned", "measured")


class Settings(NamedTuple):
    """The settings in force.

    Parameters
    ----------
    backend : str
        Backend of calls whose arrays are all NumPy arrays.
    implementation : str
        ``"auto"`` or an implementation's name.
    data_format : {"channels_last", "channels_first"}
    max_workspace : int
        Bytes an implementation may hold beyond inputs, outputs, weights and gradients.
    threads : int or None
        Threads of implementations that have a thread pool; None for as many as the process may use.
    precision : {"ieee", "tf32x3"}
        How kernels for GPUs multiply float32: in float32, or in three products of TensorFloat-32
        wherever that keeps the error bound.
    tiles : {"tuned", "pinned", "measured"}
        How kernels for GPUs choose their tiles. ``"tuned"``: what ``lcmulti tune`` measured, and
        estimates for other layers. ``"pinned"``: estimates only, so that the order of sums never
        changes. ``"measured"``: by a measurement at the first call.
    """

    backend: str = "numpy"
    implementation: str = "auto"
    data_format: str = "channels_last"
    max_workspace: int = 256 * MEBIBYTE
    threads: int | None = None
    precision: str = "ieee"
    tiles: str = "tuned"

    @property
    def resources(self) -> Resources:
        """The settings that a computation receives."""
        return Resources(self.max_workspace, self.threads, self.precision, self.tiles)


class SettingChanges(TypedDict, total=False):
    """`Settings` as a caller may write them, for type checkers; None stands for the default."""

    backend: str | None
    implementation: str | None
    data_format: str | None
    max_workspace: int | str | None
    threads: int | str | None
    precision: str | None
    tiles: str | None


class Source(NamedTuple):
    """One setting's value and the place it came from."""

    value: Any
    place: str


DEFAULTS = Settings()
_NAMES = Settings._fields
_variables = Variables(_NAMES)
VARIABLES = _variables.names
_closed: ClosedPlaces = {}
overrides: ContextVar[tuple[tuple[str, Any], ...]] = ContextVar("lcmulti_overrides", default=())


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ArgumentError("value", "a name", value)
    return value.strip()


def _backend(value: object) -> str:
    from lcmulti import plugins

    return choice("value", _name(value), plugins.registry().backends)


def _implementation(value: object) -> str:
    from lcmulti import plugins

    names = {name for _, name in plugins.registry().implementations}
    return choice("value", _name(value), ("auto", *sorted(names)))


def _threads(value: object) -> int | None:
    if value is None or (isinstance(value, str) and value.strip().lower() == "auto"):
        return None
    if isinstance(value, str):
        if re.fullmatch(r"\s*\d{1,9}\s*", value, re.ASCII) is None:
            raise ArgumentError("value", "a positive integer or 'auto'", value)
        value = int(value)
    return integer("value", value, 1)


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "backend": _backend,
    "implementation": _implementation,
    "data_format": lambda value: choice("value", value, DATA_FORMATS),
    "max_workspace": lambda value: byte_size("value", value),
    "threads": _threads,
    "precision": lambda value: choice("value", value, PRECISIONS),
    "tiles": lambda value: choice("value", value, TILES),
}


def parse(name: str, value: object, place: str) -> Any:
    """Return the checked value of a setting; an error names the setting and its *place*."""
    require_known(name, place)
    try:
        if isinstance(value, int) and value.bit_length() > 63:
            raise ArgumentError("value", "a number below 2**63", value)
        return _PARSERS[name](value)
    except ArgumentError as error:
        raise ConfigError(name, error.expected, described(f"{shown(value)} ({place})")) from None


def require_known(name: str, place: str) -> None:
    """Raise `ConfigError`, naming *place* and all settings, unless *name* is one of them."""
    if name not in _NAMES:
        known = ", ".join(repr(each) for each in _NAMES)
        raise ConfigError(
            name, f"one of the settings {known}", described(f"{shown(name)} ({place})")
        )


@cache
def _file_sources() -> dict[str, Source]:
    """Settings from files, in order of precedence, over the defaults."""
    found = {name: Source(getattr(DEFAULTS, name), "default") for name in _NAMES}
    _closed.clear()
    keras = keras_json(_closed)
    if keras is not None and keras[1] in DATA_FORMATS:
        found["data_format"] = Source(keras[1], str(keras[0]))
    layers: list[tuple[Path, Mapping[str, Any]]] = []
    if is_there(user := user_file(), _closed):
        layers.append((user, read_toml(user)))
    if (project := project_table(_closed)) is not None:
        layers.append(project)
    for path, table in layers:
        for name, value in table.items():
            found[name] = Source(parse(name, value, str(path)), str(path))
    return found


def _sources(
    variables: tuple[str | None, ...], overrides: tuple[tuple[str, Any], ...]
) -> dict[str, Source]:
    found = dict(_file_sources())
    for name, variable, value in zip(_NAMES, VARIABLES, variables, strict=True):
        if value is not None:
            found[name] = Source(parse(name, value, variable), variable)
    for name, value in overrides:
        found[name] = Source(value, "lcmulti.config(...)")
    return found


@lru_cache(maxsize=256)
def _resolve(variables: tuple[str | None, ...], overrides: tuple[tuple[str, Any], ...]) -> Settings:
    return Settings(
        **{name: source.value for name, source in _sources(variables, overrides).items()}
    )


def current() -> Settings:
    """The settings in force here and now."""
    return _resolve(_variables.values(), overrides.get())


def sources() -> dict[str, Source]:
    """Every setting with its value and the place it came from."""
    return _sources(_variables.values(), overrides.get())


def closed_places() -> ClosedPlaces:
    """Places that may hold settings and cannot be read, with the reason."""
    _file_sources()
    return dict(_closed)


def reload() -> None:
    """Read the settings files again on next use, and tell again of unknown variables."""
    _file_sources.cache_clear()
    _resolve.cache_clear()
    _variables.forget()


read_default_from(lambda: current().data_format)
