"""Which layers of a network to change: names, patterns, classes or a predicate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from lcmulti.errors import ArgumentError, ArgumentTypeError
from lcmulti.untying.arguments import Where

__all__ = ["chosen", "chosen_to_retie"]

Module = TypeVar("Module")


def chosen(where: Where, modules: Iterable[tuple[str, Module]]) -> list[tuple[str, Module]]:
    """Select modules: those that *where* names, or all of them if it is None.

    Parameters
    ----------
    where : None, str, type, callable, or a sequence of these
        A name or pattern (``"encoder.*"``), a class, or ``(name, module) -> bool``.
    modules : iterable of (str, module)
        Every convolution by its name.

    Raises
    ------
    ArgumentError
        If a name, pattern or class fits no convolution (the message lists them), if predicates
        alone choose none, or if *where* is an empty list.
    """
    there = list(modules)
    if where is None:
        return there
    every = where if isinstance(where, (list, tuple)) else [where]
    if not every:
        raise ArgumentError("where", "at least one name, pattern, class or predicate", where)
    wanted = [(each, _test(each)) for each in every]
    names = ", ".join(repr(name) for name, _ in there) or "none"
    for given, test in wanted:
        if isinstance(given, (str, type)) and not any(test(*each) for each in there):
            what = f"a name, pattern or class of the network's convolutions: {names}"
            raise ArgumentError("where", what, given)
    take = [each for each in there if any(test(*each) for _, test in wanted)]
    if there and not take:
        raise ArgumentError("where", f"a predicate that chooses some of {names}", where)
    return take


def chosen_to_retie(
    where: Where, layers: Iterable[tuple[str, Module]], model: object
) -> list[tuple[str, Module]]:
    """Select locally connected layers, as `chosen` does; there has to be one.

    Parameters
    ----------
    model : object
        The network, or how to show it in the error.

    Raises
    ------
    ArgumentError
    """
    take = chosen(where, layers)
    if not take:
        raise ArgumentError("model", "a network with locally connected layers", model)
    return take


def _test(given: object) -> Callable[[str, Any], bool]:
    if isinstance(given, str):
        return lambda name, _: name == given or fnmatchcase(name, given)
    if isinstance(given, type):
        return lambda _, module: isinstance(module, given)
    if callable(given):
        return lambda name, module: bool(given(name, module))
    what = "None, a name, a pattern, a class, (name, module) -> bool, or a list of these"
    raise ArgumentTypeError("where", what, given)
