"""The steps of every call: find the backend, convert the arrays, make a plan, run it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from lcmulti import plugins
from lcmulti.choosing.dispatch import Plan
from lcmulti.choosing.framework import backend_of, readers_of
from lcmulti.choosing.preparing import converted
from lcmulti.errors import ArgumentTypeError
from lcmulti.plugins.contract import Backend
from lcmulti.types import Array

__all__ = ["OPERATIONS", "Composite", "add_bias", "call_key", "calls"]


class Composite(NamedTuple):
    """An operation: the names of its array arguments, and the function that runs it.

    Parameters
    ----------
    names : tuple of str
        Names of the array arguments, for errors.
    run : callable
        ``(backend, *arrays, arguments) -> y``, with the name of a backend and arrays of it.
    """

    names: tuple[str, ...]
    run: Callable[..., Any]


OPERATIONS: dict[str, Composite] = {}
"""Every operation, by the name of its public function. The file that defines it adds it here."""

calls: dict[str, Callable[..., Any]] = {}
"""The function that runs an operation on arrays of one backend, by `call_key`."""


def call_key(operation: str, kinds: tuple[type, ...], backend: str | None) -> str:
    """Key in `calls` of the function that runs an operation on arrays of these types."""
    if backend is not None and not isinstance(backend, str):
        raise ArgumentTypeError("backend", "a name or None", backend)
    names = OPERATIONS[operation].names
    name, neutral = backend_of(kinds, backend, names=names)
    key = f"{operation} in {name}{' from NumPy' if neutral else ''}"
    if readers := readers_of(kinds):
        key += f", reading {readers}"
    if key not in calls:
        call = _call(operation, name, neutral)
        calls[key] = _reading(readers, call) if readers else call
    return key


# PyTorch's tracer calls a function with this mark and treats its result, which depends on types
# and settings only, as a constant of the trace. A constant may be a string, not a function.
call_key._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _call(operation: str, name: str, neutral: bool) -> Callable[..., Any]:
    owner = plugins.load_backend(name)
    names, run_on = OPERATIONS[operation]
    spread: Callable[..., Any] | None = getattr(owner, "spread", None)

    def call(*arrays_and_arguments: Any) -> Array:
        *arrays, arguments = arrays_and_arguments
        over_processes = None if spread is None else spread(operation, arrays)
        if over_processes is not None:
            return over_processes(*arrays, arguments)
        y = run_on(name, *converted(name, arrays, names), arguments)
        return owner.to_numpy(y) if neutral else y

    return owner.opaque(call)


def _reading(readers: tuple[str, ...], call: Callable[..., Any]) -> Callable[..., Any]:
    """*call* on the arrays that variables hold. A tracer of Python code sees them being read."""
    reads = [plugins.load_backend(reader).read if reader else None for reader in readers]

    def call_on_variables(*arrays_and_arguments: Any) -> Array:
        *arrays, arguments = arrays_and_arguments
        values = [each if of is None else of(each) for of, each in zip(reads, arrays, strict=True)]
        return call(*values, arguments)

    return call_on_variables


def add_bias(plan: Plan, owner: Backend, y: Array, bias: Array) -> Array:
    """Add a bias ``(*output_size, filters)`` to a result in the caller's data format."""
    return owner.add(y, owner.move_axis(bias, -1, 0) if plan.channels_first else bias)
