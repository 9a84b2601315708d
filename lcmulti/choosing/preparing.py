"""From the arrays of a caller to the arrays of a backend and a plan for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lcmulti import plugins
from lcmulti.choosing import dispatch
from lcmulti.choosing.framework import ARGUMENTS, NUMPY
from lcmulti.choosing.settings import current
from lcmulti.dtypes import DTYPES, name_of
from lcmulti.errors import ArgumentError, ArgumentTypeError, DtypeError, described
from lcmulti.plugins.contract import Backend, Facts, Map
from lcmulti.types import Array

__all__ = ["cast", "converted", "facts_of", "prepare", "prepare_alike"]


def prepare(
    name: str,
    x: Array,
    kernel: Array,
    bias: Array,
    arguments: tuple[object, ...],
    map_: Map = "forward",
) -> tuple[dispatch.Plan, tuple[Array, ...]]:
    """Plan a call on arrays of the backend *name*.

    Returns
    -------
    plan : Plan
    arrays : tuple
        ``x``, ``kernel`` and ``bias`` (or None) as arrays of the backend.
    """
    owner = plugins.load_backend(name)
    arrays = owner.prepare((x, kernel, bias))
    return dispatch.plan(name, _facts(owner, arrays), arguments, current(), map_), arrays


def _facts(owner: Backend, arrays: tuple[Array, ...]) -> dispatch.ArgumentFacts:
    x, kernel, bias = arrays
    argument = "x"
    try:
        of_x = owner.facts(x, True)
        argument = "kernel"
        of_kernel = owner.facts(kernel)
        argument = "bias"
        return of_x, of_kernel, None if bias is None else owner.facts(bias)
    except ArgumentError as error:  # the backend does not know the name of the argument
        raise error.about(argument) from None


def cast(owner: Backend, names: Sequence[str], arrays: tuple[Array, ...]) -> tuple[Array, ...]:
    """`Backend.prepare` of up to three arrays; an error has the name that the caller knows."""
    try:
        return owner.prepare((*arrays, None, None)[:3])[: len(arrays)]
    except ArgumentError as error:
        raise error.about(names[ARGUMENTS.index(error.argument)]) from None


def prepare_alike(
    name: str, names: Sequence[str], arrays: tuple[Array, ...]
) -> tuple[tuple[Array, ...], tuple[Facts, ...]]:
    """Cast up to three arrays of the backend *name* of one dtype, which *names* names; their facts.

    An array called ``x`` has a batch.
    """
    owner = plugins.load_backend(name)
    arrays = cast(owner, names, arrays)
    facts = tuple(
        facts_of(owner, argument, array, batched=argument == "x")
        for argument, array in zip(names, arrays, strict=True)
    )
    dispatch.check_alike(name, names, facts)
    return arrays, facts


def facts_of(owner: Backend, argument: str, array: Array, batched: bool = False) -> Facts:
    """`Backend.facts` of one array; an error names the argument."""
    try:
        return owner.facts(array, batched)
    except ArgumentError as error:
        raise error.about(argument) from None


def converted(name: str, arrays: Sequence[Array], names: tuple[str, ...]) -> tuple[Array, ...]:
    """Convert NumPy arrays to the backend *name*, on the device of the arrays that are its own.

    Subclasses of `numpy.ndarray` become plain arrays, because their arithmetic differs.
    """
    if not any(isinstance(array, np.ndarray) for array in arrays):
        return tuple(arrays)
    owner = plugins.load_backend(name)
    like = next((a for a in arrays if a is not None and not isinstance(a, np.ndarray)), None)
    result = list(arrays)
    for i, (argument, array) in enumerate(zip(names, arrays, strict=True)):
        if not isinstance(array, np.ndarray):
            continue
        if isinstance(array, np.ma.MaskedArray):
            shown = described("a masked array; call .filled(value) on it")
            raise ArgumentTypeError(argument, "an array without a mask", shown)
        if name_of(array.dtype) not in DTYPES:
            raise DtypeError(argument, f"dtype {', '.join(DTYPES)}", array.dtype.name)
        plain = np.asarray(array)
        if not plain.dtype.isnative:
            plain = plain.astype(plain.dtype.newbyteorder("="))
        if name != NUMPY:
            try:
                plain = owner.from_numpy(plain, like)
            except ArgumentError as error:
                raise error.about(argument) from None
        result[i] = plain
    return tuple(result)
