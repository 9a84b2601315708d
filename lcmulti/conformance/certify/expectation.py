"""The expected results of a case: exact values, and how far rounding may move each element.

Values are sums in extended precision of the products that `lcmulti.conformance.oracle` lists. It
shares no code with the backends.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

from lcmulti.conformance import oracle
from lcmulti.conformance.bounds import bounds, dot_bound, expect, terms
from lcmulti.conformance.calls import Inputs, ReferenceRunner, Results
from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.geometries import GEOMETRIES, STATISTICS
from lcmulti.conformance.inputs import draw
from lcmulti.dtypes import DTYPES
from lcmulti.geometry.spec import LocalConvSpec

__all__ = [
    "Expectation",
    "Term",
    "combined",
    "evaluate",
    "exact",
    "expectation",
    "expectation_of",
    "summed",
    "without_bias",
]


class Expectation(NamedTuple):
    """Inputs of a case and the expected results.

    Parameters
    ----------
    inputs : Inputs
    values : Results
        In float64, complex128 or extended precision.
    magnitudes : Results
        The same operation on absolute values.
    limits : Results
        Forward error bound of each element.
    """

    inputs: Inputs
    values: Results
    magnitudes: Results
    limits: Results


def expectation_of(case: Case, dtype: str, inputs: Inputs | None = None) -> Expectation:
    """Compute what is expected. *inputs* are random, with the case's name as seed, if not given."""
    inputs = draw(case, dtype) if inputs is None else inputs
    expected = expect(case, inputs)
    limits = bounds(case, expected, inputs.bias, dtype)
    return Expectation(inputs, exact(case, inputs), expected.magnitudes, limits)


def exact(case: Case, inputs: Inputs) -> Results:
    """Value and gradients in extended precision."""
    kind = np.clongdouble if np.iscomplexobj(inputs.x) else np.longdouble
    return summed(case, inputs, np.dtype(kind))


def summed(case: Case, inputs: Inputs, kind: np.dtype) -> Results:
    """Value and gradients, adding one product after the other in the type *kind*."""
    x, kernel, dy = (each.astype(kind) for each in (inputs.x, inputs.kernel, inputs.dy))
    at_y, at_x, at_kernel = products(case.spec)
    y, dx, dkernel = (np.zeros(each.shape, kind) for each in (dy, x, kernel))
    for n in range(case.batch):
        seen, above = x[n].ravel()[at_x], dy[n].ravel()[at_y]
        np.add.at(y[n].reshape(-1), at_y, seen * kernel.ravel()[at_kernel])
        np.add.at(dx[n].reshape(-1), at_x, above * kernel.ravel()[at_kernel])
        np.add.at(dkernel.reshape(-1), at_kernel, seen * above)
    if inputs.bias is None:
        return Results(y, dx, dkernel)
    bias, last = inputs.bias.astype(kind), case.spec.data_format == "channels_last"
    shared = tuple(axis for axis, n in enumerate(bias.shape[:-1]) if n == 1)
    dbias = (dy if last else np.moveaxis(dy, 1, -1)).sum(0).sum(shared, keepdims=True)
    return Results(y + (bias if last else np.moveaxis(bias, -1, 0)), dx, dkernel, dbias)


@lru_cache(maxsize=64)
def products(spec: LocalConvSpec) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flat indices into one sample of ``y``, one of ``x``, and ``kernel``, of every product.

    The products and their order are those of `lcmulti.conformance.oracle.products`, found at once
    instead of one by one. The oracle's `source` says which element a tap reads.
    """
    ndim, channels = spec.ndim, spec.in_channels // spec.groups
    whole = (*spec.output_size, *spec.kernel_size, spec.filters, channels)
    *places, f, c = np.indices(whole, sparse=True)
    outputs, taps, inputs = places[:ndim], places[ndim:], []
    for axis, (size, window) in enumerate(zip(spec.output_size, spec.kernel_size, strict=True)):
        read = [[oracle.source(spec, axis, o, t) for t in range(window)] for o in range(size)]
        inputs.append(np.array(read, int).reshape(size, window)[outputs[axis], taps[axis]])
    within = np.ones(whole, bool)
    for each in inputs:
        within &= each >= 0
    group = f // (spec.filters // spec.groups)
    weights = (0 * o if axis in spec.shared_axes else o for axis, o in enumerate(outputs))
    rows = (
        (_ordered(outputs, f, spec), spec.output_shape),
        (_ordered(inputs, group * channels + c, spec), spec.input_shape),
        ((*weights, *taps, c, f), spec.kernel_shape),
    )
    y, x, kernel = (
        np.broadcast_to(np.ravel_multi_index(index, shape, mode="clip"), whole)[within]
        for index, shape in rows
    )
    return y, x, kernel


def _ordered(
    position: list[np.ndarray], channel: np.ndarray, spec: LocalConvSpec
) -> tuple[np.ndarray, ...]:
    first = spec.data_format == "channels_first"
    return (channel, *position) if first else (*position, channel)


@cache
def expectation(name: str, dtype: str) -> Expectation:
    """`expectation_of` a fixed geometry."""
    return expectation_of((GEOMETRIES | STATISTICS)[name], dtype)


def without_bias(case: Case) -> Case:
    """The same case without a bias, so that it is bilinear."""
    return replace(case, bias_shared_axes=None)


class Term(NamedTuple):
    """One of the three maps applied to two arrays, in the layout of a case.

    ``forward(x, kernel)``, ``input_grad(dy, kernel)`` or ``kernel_grad(x, dy)``.
    """

    map: str
    a: np.ndarray
    b: np.ndarray


def combined(
    case: Case, dtype: str, *parts: Term, bias: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Value and bound of a sum of maps; every derivative is one.

    A sum of sums of products is a sum of products, of all their terms.
    """
    case, is_complex = without_bias(case), dtype.startswith("complex")
    value: Any = sum(evaluate(case, part) for part in parts)
    size: Any = sum(
        evaluate(case, Term(part.map, np.abs(part.a), np.abs(part.b))) for part in parts
    )
    if bias is not None:
        shaped = bias.astype(value.dtype)
        if case.spec.data_format == "channels_first":
            shaped = np.moveaxis(shaped, -1, 0)
        value, size = value + shaped, size + np.abs(shaped)
    count = sum(getattr(terms(case.spec, case.batch, None), part.map) for part in parts)
    roundoff = DTYPES[DTYPES[dtype].accumulator].roundoff + DTYPES["float64"].roundoff
    return value, dot_bound(count, size, roundoff, is_complex)


def evaluate(case: Case, part: Term) -> np.ndarray:
    """The exact value of one map, in double precision."""
    kind = np.complex128 if np.iscomplexobj(part.a) or np.iscomplexobj(part.b) else np.float64
    a, b = part.a.astype(kind), part.b.astype(kind)
    if part.map == "forward":
        y: np.ndarray = ReferenceRunner().forward(case, Inputs(a, b, None, a))
        return y
    x = np.zeros((case.batch, *case.spec.input_shape), kind)
    kernel = np.zeros(case.spec.kernel_shape, kind)
    inputs = {
        "input_grad": Inputs(x, b, None, a),
        "kernel_grad": Inputs(a, kernel, None, b),
    }[part.map]
    value: np.ndarray = getattr(ReferenceRunner().results(case, inputs), part.map)
    return value
