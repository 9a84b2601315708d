"""Values of the operation and of its gradients, element by element, on the fixed geometries."""

from __future__ import annotations

import pytest

from lcmulti.conformance.calls import MAPS
from lcmulti.conformance.cases import Case
from lcmulti.conformance.certify.expectation import expectation, expectation_of, without_bias
from lcmulti.conformance.certify.geometries import COVERING, GEOMETRIES
from lcmulti.conformance.certify.subject import AUTO, CORE_DTYPE, Subject

LEAST_SERVED = 8
"""Fixed geometries an implementation must serve: there are more than that of every kind."""


@pytest.mark.core
@pytest.mark.geometries(GEOMETRIES, others=COVERING)
def test_value(subject: Subject, case: Case, dtype: str) -> None:
    """`local_conv` with the implementation forced."""
    subject.require(case, dtype)
    inputs, values, _, limits = expectation(case.name, dtype)
    arrays = subject.arrays(inputs)
    y = subject.call(case)(*arrays)
    subject.verify("y", y, arrays[0], values.forward, limits.forward)


@pytest.mark.core
@pytest.mark.geometries(GEOMETRIES, others=COVERING, computed=True)
def test_maps(named: Subject, case: Case, dtype: str) -> None:
    """The three maps of the implementation, called directly."""
    named.require(case, dtype)
    bare = without_bias(case)
    inputs, values, _, limits = expectation_of(bare, dtype)
    x, kernel, dy = (named.array(each) for each in (inputs.x, inputs.kernel, inputs.dy))
    maps, rest = named.maps, (case.spec, named.resources())
    results = {
        "forward": maps.forward(x, kernel, *rest),
        "input_grad": maps.input_grad(dy, kernel, *rest),
        "kernel_grad": maps.kernel_grad(x, dy, *rest),
    }
    for name, got in results.items():
        named.verify(name, got, x, getattr(values, name), getattr(limits, name))


@pytest.mark.core
@pytest.mark.geometries(GEOMETRIES, others=COVERING)
def test_gradients(subject: Subject, case: Case, dtype: str) -> None:
    """The backend's own reverse mode, in all arguments at once."""
    subject.require_capability("reverse")
    subject.require(case, dtype)
    inputs, values, _, limits = expectation(case.name, dtype)
    arrays, dy = subject.arrays(inputs), subject.array(inputs.dy)
    value, gradients = subject.owner.vjp(subject.call(case), arrays, dy)
    names = MAPS[: 1 + len(arrays)]
    for name, got in zip(names, (value, *gradients), strict=True):
        subject.verify(name, got, arrays[0], getattr(values, name), getattr(limits, name))


@pytest.mark.core
def test_claim_is_not_empty(subject: Subject) -> None:
    """An implementation that declines everything would pass whatever else is asked."""
    refusals = [subject.refusal(case, CORE_DTYPE) for case in GEOMETRIES.values()]
    served, least = refusals.count(None), LEAST_SERVED
    if subject.implementation == AUTO:
        least = len(GEOMETRIES)
    reasons = "; ".join(sorted({each for each in refusals if each is not None}))
    assert served >= least, (
        f"{subject} serves {served} of {len(GEOMETRIES)} geometries in {CORE_DTYPE}, "
        f"expected at least {least} ({reasons})"
    )
