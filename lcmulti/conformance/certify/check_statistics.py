"""Over many elements, no more error than NumPy makes in the same dtype.

A bound holds for the worst order of summation; digits lost everywhere, a few bits at a time,
stay under it where sums are long. Their root mean square does not. NumPy's own result is a plain
sum, one product after the other: how a matrix library orders its sums, and so how much better it
is than that, differs between machines.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from lcmulti.conformance.calls import Results
from lcmulti.conformance.certify.expectation import expectation, summed
from lcmulti.conformance.certify.geometries import STATISTICS
from lcmulti.conformance.certify.subject import Subject
from lcmulti.conformance.inputs import numpy_dtype
from lcmulti.dtypes import DTYPES


@cache
def _plain(name: str, dtype: str) -> Results:
    """NumPy's sums, which are the same for whoever is held to them."""
    accumulator = np.dtype(DTYPES[dtype].accumulator)
    return summed(STATISTICS[name], expectation(name, dtype).inputs, accumulator)


MAPS = ("forward", "input_grad", "kernel_grad")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", STATISTICS)
def test_error_of_many_elements(subject: Subject, name: str, dtype: str) -> None:
    """Root mean square of error over bound: at most twice NumPy's, 3 times for half types."""
    case, known = STATISTICS[name], expectation(name, dtype)
    subject.require(case, dtype)
    kind = DTYPES[dtype]
    plain = _plain(name, dtype)
    mine = subject.results(case, known.inputs)
    allowed = 3 if kind.is_half else 2
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
