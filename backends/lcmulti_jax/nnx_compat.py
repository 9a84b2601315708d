"""What Flax spells differently from release to release, in one spelling."""

from __future__ import annotations

from typing import Any

from flax import nnx

__all__ = ["CONTAINERS", "is_module_list", "nothing", "put"]

CONTAINERS: tuple[Any, ...] = (list, dict, *((nnx.List,) if hasattr(nnx, "List") else ()))
"""Types whose entries are set by key."""


def is_module_list(module: Any) -> bool:
    """Whether it is an `nnx.List`, which is a module as well."""
    return isinstance(module, CONTAINERS) and isinstance(module, nnx.Module)


def nothing() -> Any:
    """None, for an attribute that may become a parameter."""
    return nnx.data(None) if hasattr(nnx, "data") else None


def put(variable: Any, value: Any) -> None:
    """Set the array of a variable."""
    if hasattr(variable, "set_value"):
        variable[...] = value
    else:
        variable.value = value
