"""Where each setting comes from.

In order: the call, ``with lcmulti.config(...)``, ``LCMULTI_*`` variables, ``lcmulti.toml`` or
``[tool.lcmulti]`` of the nearest ``pyproject.toml``, the user's file, keras.json (for
``data_format``), the default. A value only ever chooses among registered names; none names a
module or a path to import. Files are read once in a process, on first use.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from lcmulti.errors import ArgumentError, ConfigError, FileError, described
from lcmulti.geometry.arguments import byte_size, choice, integer
from lcmulti.geometry.formats import DATA_FORMATS, read_default_from
from lcmulti.plugins.contract import Resources
from lcmulti.replacing import replaced

__all__ = ["DEFAULTS", "Settings", "Source", "config", "sources", "user_file", "write_user_setting"]

MEBIBYTE = 2**20
PRECISIONS = ("ieee", "tf32x3")
TILES = ("tuned", "pinned", "measured")


class Settings(NamedTuple):
    """The settings in force.

    Parameters
    ----------
    backend : str
        Backend of calls whose arrays are all NumPy's.
    implementation : str
        ``"auto"`` or an implementation's name.
    data_format : {"channels_last", "channels_first"}
    max_workspace : int
        Bytes an implementation may hold beyond inputs, outputs, weights and gradients.
    threads : int or None
        Threads of implementations with a pool of their own; None for as many as the process has.
    precision : {"ieee", "tf32x3"}
        How kernels for GPUs multiply float32: in float32, or in three products of TensorFloat-32
        wherever that keeps the error bound.
    tiles : {"tuned", "pinned", "measured"}
        Where kernels for GPUs have their tiles from: what `lcmulti tune` kept, and for the rest
        estimates; estimates alone, so that sums keep one order; or measured at the first call.
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
        """What of it a computation is told."""
        return Resources(self.max_workspace, self.threads, self.precision, self.tiles)


class Source(NamedTuple):
    """One setting's value and the place it came from."""

    value: Any
    place: str


DEFAULTS = Settings()
_NAMES = Settings._fields
VARIABLES = tuple(f"LCMULTI_{name.upper()}" for name in _NAMES)
_KEYS = tuple(map(getattr(os.environ, "encodekey", str), VARIABLES))
_overrides: ContextVar[tuple[tuple[str, Any], ...]] = ContextVar("lcmulti_overrides", default=())


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ArgumentError("value", "a name", value)
    return value.strip()


def _backend(value: Any) -> str:
    from lcmulti import plugins

    return choice("value", _name(value), plugins.registry().backends)


def _implementation(value: Any) -> str:
    from lcmulti import plugins

    names = {name for _, name in plugins.registry().implementations}
    return choice("value", _name(value), ("auto", *sorted(names)))


def _threads(value: Any) -> int | None:
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


def parse(name: str, value: Any, place: str) -> Any:
    """Return the checked value of a setting; an error names the setting and its *place*."""
    require_known(name, place)
    try:
        return _PARSERS[name](value)
    except ArgumentError as error:
        raise ConfigError(name, error.expected, described(f"{value!r} ({place})")) from None


def require_known(name: str, place: str) -> None:
    """Raise `ConfigError`, naming *place* and all settings, unless *name* is one of them."""
    if name not in _NAMES:
        known = ", ".join(repr(each) for each in _NAMES)
        raise ConfigError(name, f"one of the settings {known}", described(f"{name!r} ({place})"))


def user_file() -> Path:
    """The user's own settings file."""
    import platformdirs

    return Path(platformdirs.user_config_dir("lcmulti", appauthor=False)) / "lcmulti.toml"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, not TOML
        raise ConfigError(str(path), "a readable TOML file", described(str(error))) from error


def _project_table() -> tuple[Path, Mapping[str, Any]] | None:
    try:
        directory = Path.cwd()
    except OSError:  # it was deleted under us
        return None
    for folder in (directory, *directory.parents):
        own = folder / "lcmulti.toml"
        if own.is_file():
            return own, _read_toml(own)
        pyproject = folder / "pyproject.toml"
        if pyproject.is_file():
            tool = _read_toml(pyproject).get("tool")
            table = tool.get("lcmulti") if isinstance(tool, dict) else None
            return (pyproject, _as_table(table, pyproject)) if table is not None else None
    return None


def _as_table(value: Any, path: Path) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(str(path), "a table of settings", value)
    return value


def _keras_json() -> tuple[Path, str] | None:
    try:
        folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
        path = folder / "keras.json"
        data_format = json.loads(path.read_text(encoding="utf-8")).get("image_data_format")
    except (OSError, ValueError, AttributeError, RuntimeError):
        return None  # the file is Keras' own: what Keras makes of it is not ours to judge
    return (path, data_format) if data_format in DATA_FORMATS else None


@cache
def _file_sources() -> dict[str, Source]:
    """Settings from files, the stronger place over the weaker, over the defaults."""
    found = {name: Source(getattr(DEFAULTS, name), "default") for name in _NAMES}
    keras = _keras_json()
    if keras is not None:
        found["data_format"] = Source(keras[1], str(keras[0]))
    layers: list[tuple[Path, Mapping[str, Any]]] = []
    if (user := user_file()).is_file():
        layers.append((user, _read_toml(user)))
    if (project := _project_table()) is not None:
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


def _variables() -> tuple[str | None, ...]:
    # At every call. Most are not set, which `os.environ` finds out by way of two exceptions.
    held = getattr(os.environ, "_data", None)
    if held is None:
        return tuple(map(os.environ.get, VARIABLES))
    found = map(held.get, _KEYS)
    return tuple(None if raw is None else os.environ.decodevalue(raw) for raw in found)


def current() -> Settings:
    """The settings in force here and now."""
    return _resolve(_variables(), _overrides.get())


def sources() -> dict[str, Source]:
    """Every setting with its value and the place it came from."""
    return _sources(_variables(), _overrides.get())


def reload() -> None:
    """Read the settings files again on next use."""
    _file_sources.cache_clear()
    _resolve.cache_clear()


def write_user_setting(name: str, value: str) -> Path:
    """Check a setting and write it to the user's file, keeping the others.

    Raises
    ------
    ConfigError
        If the setting or its value is unknown, or the file cannot be read or written.
    """
    parse(name, value, "lcmulti config set")
    path = user_file()
    table = (_read_toml(path) if path.exists() else {}) | {
        name: "auto" if value is None else value  # TOML has no null
    }
    for key, entry in table.items():
        parse(key, entry, str(path))
    # Every setting is a string or an integer, and JSON spells both as TOML does.
    text = "".join(f"{key} = {json.dumps(entry)}\n" for key, entry in table.items())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as stream:  # readers see the old file or the new one, never half of it
            stream.write(text.encode("utf-8"))
    except (OSError, FileError) as error:
        shown = described(str(error.__cause__ or error))
        raise ConfigError(str(path), "a writable file", shown) from error
    reload()
    return path


class Config:
    """The settings in force as attributes; called, a context manager that changes some.

    Examples
    --------
    >>> import lcmulti
    >>> with lcmulti.config(data_format="channels_first", max_workspace="64MiB"):
    ...     lcmulti.config.max_workspace
    67108864
    """

    @contextmanager
    def __call__(self, **settings: Any) -> Iterator[Settings]:
        """Change settings within a ``with`` block, in this thread or task alone.

        Parameters
        ----------
        **settings
            Any of `Settings`; None takes the setting back to its default.

        Raises
        ------
        ConfigError
            If a setting or its value is unknown.
        """
        changes = {
            name: getattr(DEFAULTS, name, None)
            if value is None and name in _NAMES
            else parse(name, value, "lcmulti.config(...)")
            for name, value in settings.items()
        }
        token = _overrides.set(tuple((dict(_overrides.get()) | changes).items()))
        try:
            yield current()
        finally:
            _overrides.reset(token)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"settings are changed by: with lcmulti.config({name}={value!r}): ...")

    def __getattr__(self, name: str) -> Any:
        if name not in _NAMES:
            raise AttributeError(f"no setting {name!r}; there are {', '.join(_NAMES)}")
        return getattr(current(), name)

    def __repr__(self) -> str:
        return f"lcmulti.config({', '.join(f'{k}={v!r}' for k, v in current()._asdict().items())})"


config = Config()
read_default_from(lambda: current().data_format)
