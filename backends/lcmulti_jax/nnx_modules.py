"""The modules of a Flax NNX module: find them by name, and replace some."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from flax import nnx

from lcmulti_jax.nnx_base import Layer
from lcmulti_jax.nnx_compat import CONTAINERS, is_module_list

__all__ = ["CONVOLUTIONS", "named", "replaced", "swapped"]

CONVOLUTIONS = (nnx.Conv, nnx.ConvTranspose)


def _children(module: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(module, (list, tuple)) or is_module_list(module):
        yield from enumerate(module)
    elif isinstance(module, dict):
        yield from module.items()
    elif isinstance(module, nnx.Module):
        yield from vars(module).items()


def named(model: Any) -> Iterator[tuple[str, Any]]:
    """Modules by name, each only once."""
    known: set[int] = set()

    def walk(name: str, value: Any) -> Iterator[tuple[str, Any]]:
        if id(value) in known:
            return
        if isinstance(value, nnx.Module):
            known.add(id(value))
            yield name, value
            if isinstance(value, (*CONVOLUTIONS, Layer)):
                return
        for key, child in _children(value):
            if isinstance(child, (nnx.Module, list, tuple, dict)) and not str(key).startswith(
                "_pytree"
            ):
                yield from walk(f"{name}.{key}" if name else str(key), child)

    yield from walk("", model)


def swapped(value: Any, new: dict[int, Any], known: set[int]) -> Any:
    """The value with modules replaced wherever it refers to them; modules change in place."""
    if id(value) in new:
        return new[id(value)]
    if isinstance(value, tuple):
        return type(value)(swapped(each, new, known) for each in value)
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
    modules = dict(named(copy))
    new = {id(modules[name]): make(name, modules[name]) for name, make in makers.items()}
    return swapped(copy, new, set())
