"""The example that a network is called with, to see the sizes of its convolutions."""

from __future__ import annotations

from numbers import Number
from typing import Any

from lcmulti.errors import ArgumentTypeError

__all__ = ["arguments_of"]


def arguments_of(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and named arguments of an example: several, named ones, or a single one.

    Raises
    ------
    ArgumentTypeError
        If the example is nothing that a network takes: None, a string or a number.
    """
    if example is None or isinstance(example, (str, bytes, Number)):
        what = "an array, a tuple or list of arguments, or a dict of named ones"
        raise ArgumentTypeError("example_input", what, example)
    if isinstance(example, dict):
        return (), example
    return (tuple(example) if isinstance(example, (tuple, list)) else (example,)), {}
