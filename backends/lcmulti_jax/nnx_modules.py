"""The modules of a Flax NNX module: find them by name, and replace some."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from flax import nnx

from lcmulti_jax.nnx_base import Layer
from lcmulti_jax.nnx_compat import CONTAINERS, is_module_list

__all__ = ["CONVOLUTIONS", "counterparts", "named", "names_of", "replaced", "swapped"]

CONVOLUTIONS = (nnx.Conv, nnx.ConvTranspose)

Path = tuple[Any, ...]
"""Attributes, indices and keys that lead to a module."""


def _children(module: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(module, (list, tuple)) or is_module_list(module):
        yield from enumerate(module)
    elif isinstance(module, dict):
        yield from module.items()
    elif isinstance(module, nnx.Module):
        yield from vars(module).items()


def _paths(value: Any, path: Path, around: Collection[int]) -> Iterator[tuple[Path, Any]]:
    """Modules by path, also those that are reached by several; *around* are those on the way."""
    if id(value) in around:
        return
    if isinstance(value, nnx.Module):
        yield path, value
        if isinstance(value, (*CONVOLUTIONS, Layer)):
            return
    for key, child in _children(value):
        holds = isinstance(child, (nnx.Module, list, tuple, dict))
        if holds and not str(key).startswith("_pytree"):
            yield from _paths(child, (*path, key), {*around, id(value)})


def _name(path: Path) -> str:
    return ".".join(map(str, path))


def named(model: Any) -> Iterator[tuple[str, Any]]:
    """Modules by name, each only once, by the name that it is given first."""
    known: set[int] = set()
    for path, module in _paths(model, (), ()):
        if id(module) not in known:
            known.add(id(module))
            yield _name(path), module


def names_of(model: Any) -> dict[int, list[str]]:
    """All names of each module, by its id."""
    found: dict[int, list[str]] = {}
    for path, module in _paths(model, (), ()):
        found.setdefault(id(module), []).append(_name(path))
    return found


def counterparts(model: Any, copy: Any) -> dict[str, Any]:
    """The modules of a copy, by the names that they have in *model*.

    Flax gives a copy its attributes in the order of the alphabet, so `named` may find another name
    first where a module has several.
    """
    known: set[int] = set()
    found: dict[str, Any] = {}
    for path, module in _paths(model, (), ()):
        if id(module) not in known:
            known.add(id(module))
            found[_name(path)] = _at(copy, path)
    return found


def _at(value: Any, path: Path) -> Any:
    for key in path:
        by_key = isinstance(value, (tuple, *CONTAINERS))
        value = value[key] if by_key else getattr(value, key)
    return value


def swapped(value: Any, new: dict[int, Any], known: set[int]) -> Any:
    """The value with modules replaced wherever it refers to them; modules change in place."""
    if id(value) in new:
        return new[id(value)]
    if isinstance(value, tuple):
        each = [swapped(child, new, known) for child in value]
        if all(now is before for now, before in zip(each, value, strict=True)):
            return value
        make = getattr(type(value), "_make", type(value))  # that of a named tuple
        return make(each)
    if id(value) in known:
        return value
    if isinstance(value, (nnx.Module, list, dict)):
        known.add(id(value))
        for key, child in list(_children(value)):
            if not isinstance(child, (nnx.Module, list, tuple, dict)):
                continue
            replaced = swapped(child, new, known)
            if replaced is child:
                continue
            if isinstance(value, CONTAINERS):
                value[key] = replaced
            else:
                setattr(value, key, replaced)
    return value


def replaced(model: Any, makers: dict[str, Callable[[str, Any], Any]]) -> Any:
    """A copy in which the named modules are replaced by what *makers* make of them."""
    copy = nnx.clone(model)
    modules = counterparts(model, copy)
    new = {id(modules[name]): make(name, modules[name]) for name, make in makers.items()}
    return swapped(copy, new, set())
