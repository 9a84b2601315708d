"""Make lcmulti importable from this checkout, where it and its dependencies are not installed.

Import this before lcmulti. The plugins are those in pyproject.toml. Where ``pluggy`` and
``platformdirs`` are missing, this module replaces the few functions of them that lcmulti uses.
"""

from __future__ import annotations

import importlib.util
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

ROOT = Path(__file__).parents[1]


class PluginManager:
    """Calls the hooks of registered plugins."""

    def __init__(self, group: str) -> None:
        self.plugins: list[Any] = []
        self.hook = SimpleNamespace()

    def add_hookspecs(self, specs: Any) -> None:
        """Make an attribute for each hook, which calls it."""
        for name in specs.__all__:
            setattr(self.hook, name, lambda name=name: self._call(name))

    def register(self, plugin: Any, name: str) -> None:
        """Add a plugin."""
        self.plugins.append(plugin)

    def check_pending(self) -> None:
        """Check nothing: plugins are checked where the packages are installed."""

    def _call(self, name: str) -> list[Any]:
        return [getattr(plugin, name)() for plugin in self.plugins if hasattr(plugin, name)]


def marker(group: str) -> Callable[[Any], Any]:
    """Leave the function as it is."""
    return lambda function: function


def _stand_in(name: str, **members: Any) -> None:
    if importlib.util.find_spec(name) is None:
        module = ModuleType(name)
        vars(module).update(members)
        sys.modules[name] = module


def _points() -> list[metadata.EntryPoint]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        found = tomllib.load(file)["project"]["entry-points"]["lcmulti"]
    return [metadata.EntryPoint(name, value, "lcmulti") for name, value in found.items()]


def _cache(name: str, **options: Any) -> str:
    return str(Path.home() / ".cache" / name)


if importlib.util.find_spec("lcmulti") is None:
    sys.path[:0] = [str(ROOT), str(ROOT / "backends")]
    _stand_in("pluggy", PluginManager=PluginManager, HookimplMarker=marker, HookspecMarker=marker)
    _stand_in("platformdirs", user_cache_dir=_cache, user_config_dir=_cache)
    _entry_points = metadata.entry_points
    # Only our group is replaced; others still come from the installed packages.
    metadata.entry_points = (  # type: ignore[assignment]
        lambda **asked: _points() if asked.get("group") == "lcmulti" else _entry_points(**asked)
    )
