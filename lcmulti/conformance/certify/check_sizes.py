"""Values and gradients at every size, of published layers, and of random calls.

Expected values are in float64; each element of every result is compared with its bound.
"""

from __future__ import annotations

import pytest

from lcmulti.conformance.case import Case
from lcmulti.conformance.certify import layers, random_geometries, sizes
from lcmulti.conformance.certify.large import expectation_of_any_size
from lcmulti.conformance.certify.subject import Subject


@pytest.mark.rows(of=sizes.rows)
def test_every_size(named: Subject, case: Case, dtype: str) -> None:
    """Each argument takes values on both sides of every power of two up to 4,096."""
    hold(named, case, dtype)


@pytest.mark.rows(of=layers.rows)
def test_published_layers(named: Subject, case: Case, dtype: str) -> None:
    """Published layers, at their published sizes."""
    hold(named, case, dtype)


@pytest.mark.drawn(of=random_geometries.calls)
def test_any_call(subject: Subject, case: Case, dtype: str) -> None:
    """Random calls: half of them with many options at once, half of them like real layers."""
    hold(subject, case, dtype)


def hold(subject: Subject, case: Case, dtype: str) -> None:
    """Compare the value and all gradients of a case with what is expected."""
    subject.require(case, dtype)
    known = expectation_of_any_size(case, dtype)
    found = subject.results(case, known.inputs)
    for name, host in found._asdict().items():
        if host is not None:
            assert host.dtype == known.inputs.x.dtype, f"{name}: {host.dtype}"
            value, limit = getattr(known.values, name), getattr(known.limits, name)
            subject.verify_host(f"{name} of {case.spec} in {dtype}", host, value, limit)
