"""Values of the operation and of its gradients on the fixed geometries, element by element."""

from __future__ import annotations

from typing import Any

import pytest

from lcmulti.conformance.calls import MAPS
from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.expectation import expectation, expectation_of, without_bias
from lcmulti.conformance.certify.geometries import CONTRACT, COVERING, GEOMETRIES
from lcmulti.conformance.certify.subject import AUTO, CORE_DTYPE, Subject
from lcmulti.types import Array

LEAST_SERVED = 8
"""How many fixed geometries an implementation must serve; every kind has more than that."""


@pytest.mark.core
@pytest.mark.geometries(GEOMETRIES, others=COVERING, compiling=COVERING)
def test_value(subject: Subject, case: Case, dtype: str) -> None:
    """`local_conv` with the named implementation, operation by operation.

    `test_gradients` compares the value of every geometry too. Where the framework compiles, its
    programs serve for most of them.
    """
    subject.require(case, dtype)
    inputs, values, _, limits = expectation(case.name, dtype)
    arrays = subject.arrays(inputs)
    y = subject.call(case)(*arrays)
    subject.verify("y", y, arrays[0], values.forward, limits.forward)


@pytest.mark.core
@pytest.mark.geometries(COVERING, others=COVERING, compiling=CONTRACT, computed=True)
def test_maps(named: Subject, case: Case, dtype: str) -> None:
    """The three maps of the implementation, called directly.

    Where the framework compiles, gradients are made of the same three programs.
    """
    named.require(case, dtype)
    bare = without_bias(case)
    inputs, values, _, limits = expectation_of(bare, dtype)
    there = inputs.each(named.array)
    for name, pair in there.operands().items():
        got = named.program(name, case.spec, named.resources())(*pair)
        named.verify(name, got, there.x, getattr(values, name), getattr(limits, name))


@pytest.mark.core
@pytest.mark.geometries(GEOMETRIES, others=COVERING)
def test_gradients(subject: Subject, case: Case, dtype: str) -> None:
    """The backend's reverse mode in all arguments at once; without one, the three maps."""
    subject.require(case, dtype)
    inputs, values, _, limits = expectation(case.name, dtype)
    if "reverse" not in subject.entry.capabilities:
        found = subject.results(case, inputs)
        for name, host in found._asdict().items():
            if host is not None:
                subject.verify_host(name, host, getattr(values, name), getattr(limits, name))
        return
    arrays, dy = subject.arrays(inputs), subject.array(inputs.dy)
    value, gradients = subject.vjp(case, arrays, dy)
    names = MAPS[: 1 + len(arrays)]
    for name, got in zip(names, (value, *gradients), strict=True):
        subject.verify(name, got, arrays[0], getattr(values, name), getattr(limits, name))


ONE_BY_ONE = ("1d-causal_dilated", "2d-channels_first", "2d-reflect_asymmetric", "2d-groups",
    "2d-stride_is_kernel_remainder", "2d-convolution_plain", "3d-plain")  # fmt: skip


@pytest.mark.geometries(ONE_BY_ONE)
@pytest.mark.capabilities("reverse")
def test_gradient_of_one_argument(subject: Subject, case: Case, dtype: str) -> None:
    """A single gradient, as in a first layer or with frozen weights, is the same as in all."""
    subject.require(case, dtype)
    inputs, values, _, limits = expectation(case.name, dtype)
    arrays, dy = subject.arrays(inputs), subject.array(inputs.dy)
    for place, name in enumerate(MAPS[1 : 1 + len(arrays)]):

        def of_one(array: Array, place: int = place) -> Any:
            return subject.call(case)(*arrays[:place], array, *arrays[place + 1 :])

        _, (got,) = subject.owner.vjp(of_one, (arrays[place],), dy)
        subject.verify(name, got, arrays[0], getattr(values, name), getattr(limits, name))


@pytest.mark.core
def test_claim_is_not_empty(subject: Subject) -> None:
    """An implementation must not decline nearly everything: it would pass all other checks."""
    refusals = [subject.refusal(case, CORE_DTYPE) for case in GEOMETRIES.values()]
    served, least = refusals.count(None), LEAST_SERVED
    if subject.implementation == AUTO:
        least = len(GEOMETRIES)
    reasons = "; ".join(sorted({each for each in refusals if each is not None}))
    assert served >= least, (
        f"{subject} serves {served} of {len(GEOMETRIES)} geometries in {CORE_DTYPE}, "
        f"expected at least {least} ({reasons})"
    )
