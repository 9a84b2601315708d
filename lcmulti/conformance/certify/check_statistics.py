"""Over many elements, no more error than NumPy makes in the same dtype.

A bound holds for the worst order of summation; digits lost everywhere, a few bits at a time,
stay under it where sums are long. Their root mean square does not.
"""

from __future__ import annotations

import numpy as np
import pytest

from lcmulti.conformance.calls import BackendRunner, Results
from lcmulti.conformance.cases import Case
from lcmulti.conformance.certify.expectation import Expectation, expectation
from lcmulti.conformance.certify.geometries import STATISTICS
from lcmulti.conformance.certify.subject import AUTO, Subject
from lcmulti.dtypes import DTYPES

MAPS = ("forward", "input_grad", "kernel_grad")


@pytest.mark.parametrize("dtype", DTYPES)
def test_error_of_many_elements(subject: Subject, dtype: str) -> None:
    """Root mean square of error over bound: at most twice NumPy's, 3 times for half types."""
    refusals = {name: subject.refusal(case, dtype) for name, case in STATISTICS.items()}
    served = [name for name, reason in refusals.items() if reason is None]
    if not served:
        pytest.skip(str(next(iter(refusals.values()))))
    ours: dict[str, list[np.ndarray]] = {name: [] for name in MAPS}
    numpys: dict[str, list[np.ndarray]] = {name: [] for name in MAPS}
    for name in served:
        case, known = STATISTICS[name], expectation(name, dtype)
        results = BackendRunner("numpy").results(case, known.inputs)
        for kind, got in (ours, _results(subject, case, known)), (numpys, results):
            for map_ in MAPS:
                value, limit = getattr(known.values, map_), getattr(known.limits, map_)
                error = np.abs(getattr(got, map_).astype(value.dtype) - value)
                kind[map_].append((error / limit).ravel())
    allowed = 3 if DTYPES[dtype].is_half else 2
    for map_ in MAPS:
        mine, numpy = (_root_mean_square(each[map_]) for each in (ours, numpys))
        assert mine <= allowed * numpy, (
            f"{map_}: root mean square error {mine / numpy:.3g} times NumPy's, at most {allowed}"
        )


def _results(subject: Subject, case: Case, known: Expectation) -> Results:
    back = subject.owner.to_numpy
    arrays, dy = subject.arrays(known.inputs), subject.array(known.inputs.dy)
    if "reverse" in subject.entry.capabilities:
        value, gradients = subject.owner.vjp(subject.call(case), arrays, dy)
        return Results(*map(back, (value, *gradients)))
    y = back(subject.call(case)(*arrays))
    if subject.implementation == AUTO:
        return BackendRunner(subject.backend).results(case, known.inputs)
    maps, rest = subject.maps, (case.spec, subject.resources())
    dx = back(maps.input_grad(dy, arrays[1], *rest))
    return Results(y, dx, back(maps.kernel_grad(arrays[0], dy, *rest)))


def _root_mean_square(parts: list[np.ndarray]) -> float:
    return float(np.sqrt(np.mean(np.concatenate(parts).astype(np.float64) ** 2)))
