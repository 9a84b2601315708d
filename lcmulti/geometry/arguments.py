"""Turn arguments as a caller writes them into ints, tuples and known names, or raise."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex, TypeGuard

from lcmulti.errors import ArgumentError, ArgumentTypeError

__all__ = [
    "byte_size", "choice", "integer", "integer_tuple", "is_sequence", "per_axis", "spatial_axes",
]  # fmt: skip

_UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_UNITS |= {"KB": 10**3, "MB": 10**6, "GB": 10**9}


def is_sequence(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether *value* is a list, a tuple or a framework's list (such as Keras' ``TrackedList``)."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def integer(argument: str, value: object, minimum: int) -> int:
    """Return *value* as an int of at least *minimum*; bools and floats are refused."""
    kind = "a positive integer" if minimum == 1 else f"an integer of at least {minimum}"
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise ArgumentTypeError(argument, kind, value)
    try:
        number = operator.index(value)
    except TypeError:  # every array has __index__; it raises unless the array is an integer scalar
        raise ArgumentTypeError(argument, kind, value) from None
    if number < minimum:
        raise ArgumentError(argument, kind, value)
    return number


def integer_tuple(argument: str, value: object, minimum: int) -> tuple[int, ...]:
    """Return a non-empty sequence of ints as a tuple."""
    if not is_sequence(value):
        raise ArgumentTypeError(argument, "a tuple of integers", value)
    if not value:
        raise ArgumentError(argument, "at least one integer", value)
    return tuple(integer(argument, item, minimum) for item in value)


def per_axis(argument: str, value: object, axes: int, minimum: int = 1) -> tuple[int, ...]:
    """Return one int per spatial axis from an int, or from a sequence of length *axes*."""
    if not is_sequence(value):
        if isinstance(value, SupportsIndex):
            return (integer(argument, value, minimum),) * axes
        raise ArgumentTypeError(argument, f"an integer or {axes} of them", value)
    if len(value) != axes:
        raise ArgumentError(argument, f"an integer or {axes} of them", value)
    return tuple(integer(argument, item, minimum) for item in value)


def spatial_axes(argument: str, value: object, axes: int) -> tuple[int, ...]:
    """Return distinct numbers of spatial axes, of which there are *axes*, as a tuple."""
    expected = f"distinct spatial axes between 0 and {axes - 1}"
    if not is_sequence(value):
        raise ArgumentTypeError(argument, expected, value)
    named = tuple(integer(argument, item, 0) for item in value)
    if len(set(named)) != len(named) or any(axis >= axes for axis in named):
        raise ArgumentError(argument, expected, value)
    return named


def choice(argument: str, value: object, choices: Iterable[str]) -> str:
    """Return the lower-case name in *choices* that *value* spells in any case."""
    known = tuple(choices)
    expected = "one of " + ", ".join(repr(name) for name in known)
    if not isinstance(value, str):
        raise ArgumentTypeError(argument, expected, value)
    name = value.lower()
    if name not in known:
        raise ArgumentError(argument, expected, value)
    return name


def byte_size(argument: str, value: object) -> int:
    """Return a number of bytes from an int or from a string such as ``"256MiB"``."""
    if not isinstance(value, str):
        return integer(argument, value, 0)
    match = re.fullmatch(r"\s*(\d{1,30})\s*([A-Za-z]*)\s*", value, re.ASCII)
    if match is None or match[2].upper() not in _UNITS:
        raise ArgumentError(argument, "bytes, or a size such as '256MiB'", value)
    return int(match[1]) * _UNITS[match[2].upper()]
