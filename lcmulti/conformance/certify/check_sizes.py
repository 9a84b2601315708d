"""Values and gradients at every size, of layers as people draw them up, and of random calls.

All in float64 beside the forward error bound; each element of every result is compared.
"""

from __future__ import annotations

import pytest

from lcmulti.conformance.case import Case
from lcmulti.conformance.certify import layers, random_geometries, sizes
from lcmulti.conformance.certify.large import expectation_of_any_size
from lcmulti.conformance.certify.subject import Subject


@pytest.mark.rows(of=sizes.rows)
def test_every_size(named: Subject, case: Case, dtype: str) -> None:
    """Each argument on both sides of every power of two up to 4,096."""
    hold(named, case, dtype)


@pytest.mark.rows(of=layers.rows)
def test_published_layers(named: Subject, case: Case, dtype: str) -> None:
    """Layers of papers, at the sizes they have there."""
    hold(named, case, dtype)


@pytest.mark.drawn(of=random_geometries.calls)
def test_any_call(subject: Subject, case: Case, dtype: str) -> None:
    """Random calls: every other one with every option at once, the rest as layers are."""
    hold(subject, case, dtype)


def hold(subject: Subject, case: Case, dtype: str) -> None:
    """Compare the value and all gradients of a case with what they must be."""
    subject.require(case, dtype)
    known = expectation_of_any_size(case, dtype)
    found = subject.results(case, known.inputs)
    for name, host in found._asdict().items():
        if host is not None:
            assert host.dtype == known.inputs.x.dtype, f"{name}: {host.dtype}"
            value, limit = getattr(known.values, name), getattr(known.limits, name)
            subject.verify_host(f"{name} of {case.spec} in {dtype}", host, value, limit)
