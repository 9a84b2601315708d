"""Over many elements, the error is no larger than NumPy's in the same dtype.

A bound holds for the worst order of summation. If every element loses a few bits, a long sum is
still within it, but the root mean square shows the loss. NumPy adds one product after the other
here. A matrix library orders its sums in other ways, and how much smaller its error is differs
between machines.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product

import numpy as np
import pytest

from lcmulti.conformance.calls import Results
from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.expectation import Expectation, expectation, summed
from lcmulti.conformance.certify.geometries import STATISTICS
from lcmulti.conformance.certify.large import expectation_of_any_size
from lcmulti.conformance.certify.subject import Subject
from lcmulti.conformance.inputs import numpy_dtype
from lcmulti.dtypes import DTYPES


@cache
def _known(name: str, dtype: str) -> tuple[Expectation, Results]:
    """What is expected, in a type with more digits, and NumPy's sums; the same for all subjects."""
    kind, case = DTYPES[dtype], STATISTICS[name]
    is_double = kind.roundoff == DTYPES["float64"].roundoff
    known = expectation(name, dtype) if is_double else expectation_of_any_size(case, dtype)
    return known, summed(case, known.inputs, np.dtype(kind.accumulator))


MAPS = ("forward", "input_grad", "kernel_grad")


def rows(few: bool) -> Iterator[tuple[Case, str]]:
    """Long sums in every type."""
    yield from product(STATISTICS.values(), DTYPES)


@pytest.mark.rows(of=rows)
def test_error_of_many_elements(subject: Subject, case: Case, dtype: str) -> None:
    """The root mean square of error over bound is at most 2 times NumPy's, 3 for half types."""
    subject.require(case, dtype)
    known, plain = _known(case.name, dtype)
    mine = subject.results(case, known.inputs)
    allowed = 3 if DTYPES[dtype].is_half else 2
    for map_ in MAPS:
        value, limit = getattr(known.values, map_), getattr(known.limits, map_)

        def error(got: np.ndarray, value: np.ndarray = value, limit: np.ndarray = limit) -> float:
            fraction = np.abs(got.astype(value.dtype) - value) / limit
            return float(np.sqrt(np.mean(fraction.astype(np.float64) ** 2)))

        ours = error(getattr(mine, map_))
        numpys = error(getattr(plain, map_).astype(numpy_dtype(dtype)))
        assert ours <= allowed * numpys, (
            f"{map_}: root mean square error {ours / numpys:.3g} times NumPy's, at most {allowed}"
        )
