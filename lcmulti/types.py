"""Types by role: what an argument is for, where no class of the core says it.

The core imports no framework, so it cannot name the classes of their arrays. `Array` says in a
signature that an argument is one; a type checker takes it for ``Any``. The backends name the
class itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex, TypeAlias

__all__ = ["Array", "Axes", "Padding", "Shape", "Sizes"]

Array: TypeAlias = Any
"""An array of any framework; all arrays of one call are of the same framework."""

Shape: TypeAlias = tuple[int | None, ...]
"""Shape of an array; None where a size is not known yet."""

Axes: TypeAlias = Sequence[SupportsIndex]
"""Spatial axes, or one number for each."""

Sizes: TypeAlias = SupportsIndex | Axes
"""One number for all spatial axes, or one for each."""

Padding: TypeAlias = str | Sizes | Sequence[Axes]
"""A name, one number, one for each spatial axis, or a pair ``(low, high)`` for each."""
