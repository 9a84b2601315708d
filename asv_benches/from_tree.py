"""lcmulti from this checkout, where neither it nor what it depends on is installed.

Import it before lcmulti. Plugins are those that pyproject.toml names; the few functions that
lcmulti uses of ``pluggy`` and ``platformdirs`` are stood in for where these are not there.
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
    """Calls the hooks of the plugins that were registered."""

    def __init__(self, group: str) -> None:
        self.plugins: list[Any] = []
        self.hook = SimpleNamespace()

    def add_hookspecs(self, specs: Any) -> None:
        """Make a caller of each hook."""
        for name in specs.__all__:
            setattr(self.hook, name, lambda name=name: self._call(name))

    def register(self, plugin: Any, name: str) -> None:
        """Add a plugin."""
        self.plugins.append(plugin)

    def check_pending(self) -> None:
        """Everything was checked where the packages are installed."""

    def _call(self, name: str) -> list[Any]:
        return [getattr(plugin, name)() for plugin in self.plugins if hasattr(plugin, name)]


def marker(group: str) -> Callable[[Any], Any]:
    """Decorate with nothing."""
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
    # For the one group that is asked for; others go to the packages that are installed.
    metadata.entry_points = (  # type: ignore[assignment]
        lambda **asked: _points() if asked.get("group") == "lcmulti" else _entry_points(**asked)
    )
