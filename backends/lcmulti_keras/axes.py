"""Constraints name axes of a kernel. If the axes of a kernel change, so must the names."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["moved_axes", "warn_of_other_axes"]

_KEPT_IN_KERAS2 = {
    1: "(positions, window, filters)",
    2: "(*input_size, channels, *output_size, filters), channels last",
    3: "(connections,)",
}
_warned: set[int] = set()


def warn_of_other_axes(implementation: Any, constraint: Any) -> None:
    """Warn, once for each implementation of Keras 2, that a constraint's axes have changed."""
    if implementation not in _KEPT_IN_KERAS2 or implementation in _warned:
        return
    if getattr(constraint, "axis", None) is None:
        return
    _warned.add(implementation)
    warnings.warn(
        f"kernel_constraint has axis={constraint.axis!r}, an axis of this layer's kernel "
        "(*output_size, *kernel_size, channels // groups, filters); Keras 2's "
        f"implementation={implementation} kept it as {_KEPT_IN_KERAS2[implementation]}. "
        "To constrain each filter at each position, name the axes of the window and the "
        "channels: axis=[2, 3, 4] in 2D",
        stacklevel=4,
    )


def moved_axes(constraint: Any, moved: Callable[[int], Iterable[int]]) -> Any:
    """A serialised constraint with its ``axis`` renumbered.

    Parameters
    ----------
    constraint : dict or None
        As `keras.constraints.serialize` returns it.
    moved : callable
        Maps an old axis to the new ones.
    """
    if not isinstance(constraint, dict) or "axis" not in constraint.get("config", {}):
        return constraint
    old = constraint["config"]["axis"]
    old = old if isinstance(old, (list, tuple)) else [old]
    new = [axis for each in old for axis in moved(each)]
    return constraint | {"config": constraint["config"] | {"axis": new}}
