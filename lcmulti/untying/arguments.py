"""What `untie` takes in every framework besides a network and its example, for type checkers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypedDict

__all__ = ["Arguments", "Where"]

Choice: TypeAlias = "str | type | Callable[[str, Any], bool]"

Where: TypeAlias = "Choice | Sequence[Choice] | None"
"""A name or pattern, a class, ``(name, module) -> bool``, several of these, or None for all."""


class Arguments(TypedDict, total=False):
    """Arguments of every `untie`; its own documentation says what each is."""

    where: Where
    shared_axes: Sequence[int]
    rank: int | None
    memory: int | str | None
    implementation: str
    tell: Callable[[str], object] | None
