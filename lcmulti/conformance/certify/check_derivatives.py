"""Derivatives beyond the first gradients: forward mode, and second order in all four ways.

The operation is bilinear, so every derivative is a sum of the three maps of known arrays. All
are compared by value: a tangent that is silently zero, or a second derivative that lacks a term,
has the right shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest

from lcmulti.conformance.calls import Inputs
from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.expectation import Term, combined, without_bias
from lcmulti.conformance.certify.geometries import DERIVATIVES
from lcmulti.conformance.certify.subject import Subject
from lcmulti.conformance.inputs import draw
from lcmulti.errors import UnsupportedError
from lcmulti.types import Array

COMPLEX = ("2d-stride_is_kernel_remainder", "2d-convolution_same_strided", "2d-mixed")
geometries = pytest.mark.geometries(
    DERIVATIVES, others=COMPLEX, dtypes=("float64", "complex64", "complex128")
)


class Drawn(NamedTuple):
    """A point and three directions, as NumPy arrays and as arrays of the backend."""

    point: Inputs
    first: Inputs
    second: Inputs
    there: tuple[Inputs, Inputs, Inputs]


def drawn(subject: Subject, case: Case, dtype: str) -> Drawn:
    """Arrays of a case; skip if the case is not served."""
    subject.require(case, dtype)
    # The name of the case is the seed of its inputs.
    point, first, second = (draw(replace(case, name=f"{case.name} {i}"), dtype) for i in range(3))
    there = tuple(each.each(subject.array) for each in (point, first, second))
    return Drawn(point, first, second, there)  # type: ignore[arg-type]


def forward_mode(subject: Subject, case: Case, function: Callable[..., Any], *rest: Any) -> Any:
    """`Backend.jvp`; skip if the implementation declares that it cannot serve a transform."""
    try:
        return subject.owner.jvp(function, *rest)
    except UnsupportedError:
        reason = subject.transform_refusal(case, subject.owner.facts(rest[0][0]).dtype)
        if reason is None:
            raise
        pytest.skip(reason)


@geometries
@pytest.mark.capabilities("forward")
def test_forward_mode(subject: Subject, case: Case, dtype: str) -> None:
    """The tangent in all arguments: ``f(tx, k) + f(x, tk) + tb``."""
    p, t, _, (there, along, _) = drawn(subject, case, dtype)
    arrays, tangents = there.given, along.given
    _, tangent = forward_mode(subject, case, subject.call(case), arrays, tangents)
    parts = Term("forward", t.x, p.kernel), Term("forward", p.x, t.kernel)
    value, limit = combined(case, dtype, *parts, bias=t.bias)
    subject.verify("tangent", tangent, arrays[0], value, limit)


@pytest.mark.geometries(COMPLEX)
@pytest.mark.capabilities("forward")
def test_tangent_of_one_argument(subject: Subject, case: Case, dtype: str) -> None:
    """The tangent in one argument: with the others constant, and with tangents of 0 for them."""
    p, t, _, (there, along, _) = drawn(subject, case, dtype)
    arrays, tangents = there.given, along.given
    nothing = Term("forward", p.x, np.zeros_like(p.kernel))
    expected = (
        combined(case, dtype, Term("forward", t.x, p.kernel)),
        combined(case, dtype, Term("forward", p.x, t.kernel)),
        combined(case, dtype, nothing, bias=t.bias),
    )
    zeros = [subject.array(np.zeros_like(each)) for each in t.given]
    for place, (value, limit) in enumerate(expected[: len(arrays)]):

        def of_one(array: Array, place: int = place) -> Any:
            return subject.call(case)(*arrays[:place], array, *arrays[place + 1 :])

        others_zero = (*zeros[:place], tangents[place], *zeros[place + 1 :])
        for function, at, direction in (
            (of_one, (arrays[place],), (tangents[place],)),
            (subject.call(case), arrays, others_zero),
        ):
            _, tangent = forward_mode(subject, case, function, at, direction)
            subject.verify(f"tangent in argument {place}", tangent, arrays[0], value, limit)


@geometries
@pytest.mark.capabilities("reverse")
def test_reverse_over_reverse(subject: Subject, case: Case, dtype: str) -> None:
    """Gradients of both gradients."""
    case = without_bias(case)
    p, c, _, (there, along, _) = drawn(subject, case, dtype)
    dx, dkernel = _gradients(subject, case, there)
    _, of_dx = subject.owner.vjp(dx, (there.kernel, there.dy), along.x)
    _, of_dkernel = subject.owner.vjp(dkernel, (there.x, there.dy), along.kernel)
    expected = (
        ("dx by kernel", of_dx[0], Term("kernel_grad", c.x, p.dy)),
        ("dx by dy", of_dx[1], Term("forward", c.x, p.kernel)),
        ("dkernel by x", of_dkernel[0], Term("input_grad", p.dy, c.kernel)),
        ("dkernel by dy", of_dkernel[1], Term("forward", p.x, c.kernel)),
    )
    for name, got, part in expected:
        subject.verify(name, got, there.x, *combined(case, dtype, part))


@geometries
@pytest.mark.capabilities("forward")
def test_forward_over_forward(subject: Subject, case: Case, dtype: str) -> None:
    """``f(tx, uk) + f(ux, tk)``."""
    case = without_bias(case)
    _, t, u, (there, along, across) = drawn(subject, case, dtype)
    function = _tangent(subject, case, along)
    _, tangent = forward_mode(subject, case, function, there.given, across.given)
    parts = Term("forward", t.x, u.kernel), Term("forward", u.x, t.kernel)
    subject.verify("tangent", tangent, there.x, *combined(case, dtype, *parts))


@geometries
@pytest.mark.capabilities("forward", "reverse")
def test_forward_over_reverse(subject: Subject, case: Case, dtype: str) -> None:
    """Tangents of both gradients, as in a Hessian times a vector."""
    case = without_bias(case)
    p, t, _, (there, along, _) = drawn(subject, case, dtype)
    dx, dkernel = _gradients(subject, case, there)
    rows = (
        ("dx", dx, (there.kernel, there.dy), (along.kernel, along.dy),
            Term("input_grad", t.dy, p.kernel), Term("input_grad", p.dy, t.kernel)),
        ("dkernel", dkernel, (there.x, there.dy), (along.x, along.dy),
            Term("kernel_grad", t.x, p.dy), Term("kernel_grad", p.x, t.dy)),
    )  # fmt: skip
    for name, function, arrays, tangents, *parts in rows:
        _, tangent = forward_mode(subject, case, function, arrays, tangents)
        subject.verify(name, tangent, there.x, *combined(case, dtype, *parts))


@geometries
@pytest.mark.capabilities("forward", "reverse")
def test_reverse_over_forward(subject: Subject, case: Case, dtype: str) -> None:
    """Gradients of the tangent."""
    case = without_bias(case)
    p, t, _, (there, along, _) = drawn(subject, case, dtype)
    function = _tangent(subject, case, along)
    _, (dx, dkernel) = subject.owner.vjp(function, there.given, there.dy)
    for name, got, part in (
        ("by x", dx, Term("input_grad", p.dy, t.kernel)),
        ("by kernel", dkernel, Term("kernel_grad", t.x, p.dy)),
    ):
        subject.verify(name, got, there.x, *combined(case, dtype, part))


def _gradients(
    subject: Subject, case: Case, there: Inputs
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """``(kernel, dy) -> dx`` and ``(x, dy) -> dkernel``, by the backend's reverse mode."""

    def dx(kernel: Array, dy: Array) -> Any:
        return subject.owner.vjp(subject.call(case), (there.x, kernel), dy)[1][0]

    def dkernel(x: Array, dy: Array) -> Any:
        return subject.owner.vjp(subject.call(case), (x, there.kernel), dy)[1][1]

    return dx, dkernel


def _tangent(subject: Subject, case: Case, along: Inputs) -> Callable[..., Any]:
    """``(x, kernel) -> tangent`` of the value."""

    def tangent(x: Array, kernel: Array) -> Any:
        return forward_mode(
            subject, case, subject.call(case), (x, kernel), (along.x, along.kernel)
        )[1]

    return tangent
