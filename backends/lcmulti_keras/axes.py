"""Constraints name axes of a kernel; where a kernel changes its axes, so must they."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["moved_axes"]


def moved_axes(constraint: Any, moved: Callable[[int], Iterable[int]]) -> Any:
    """A serialised constraint with its ``axis`` named anew.

    Parameters
    ----------
    constraint : dict or None
        As `keras.constraints.serialize` gives it.
    moved : callable
        From an old axis to the new ones.
    """
    if not isinstance(constraint, dict) or "axis" not in constraint.get("config", {}):
        return constraint
    old = constraint["config"]["axis"]
    old = old if isinstance(old, (list, tuple)) else [old]
    new = [axis for each in old for axis in moved(each)]
    return constraint | {"config": constraint["config"] | {"axis": new}}
