"""lcmulti in PyTorch: `LocallyConnected1d`, `2d`, `3d`, their transposed and lazy variants.

Importing this package imports nothing: the backend is loaded when tensors arrive, the layers
when they are asked for.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "layers": ("LocallyConnected1d", "LocallyConnected2d", "LocallyConnected3d"),
    "transposed": (
        "LocallyConnectedTranspose1d",
        "LocallyConnectedTranspose2d",
        "LocallyConnectedTranspose3d",
    ),
    "untying": ("retie", "untie"),
    "lazy": ("LazyLocallyConnected1d", "LazyLocallyConnected2d", "LazyLocallyConnected3d"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = ["functional"]
__all__ += list(_HOME)


def __getattr__(name: str) -> Any:
    if name == "functional":
        return import_module(f"{__name__}.functional")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
