"""Numbers of every size: near the ends of a type's range, subnormal numbers, and zeros.

Bounds are relative: they hold for numbers near 1 and for all others that the type can represent.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np
import pytest

from lcmulti.conformance.bounds import terms
from lcmulti.conformance.calls import Inputs, Results
from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.expectation import Expectation, expectation_of, without_bias
from lcmulti.conformance.certify.frameworks import keeps_subnormals
from lcmulti.conformance.certify.subject import Subject
from lcmulti.conformance.inputs import draw, numpy_dtype
from lcmulti.dtypes import DTYPES

KINDS = ("2d-mixed", "2d-stride_is_kernel", "2d-convolution_plain", "2d-convolution_same_strided")


class Range(NamedTuple):
    """Exponents of a type: of the largest, the smallest normal and the smallest positive number."""

    largest: int
    normal: int
    smallest: int


RANGES = {
    "float16": Range(15, -14, -24),
    "bfloat16": Range(127, -126, -133),
    "float32": Range(127, -126, -149),
    "float64": Range(1023, -1022, -1074),
}
RANGES |= {"complex64": RANGES["float32"], "complex128": RANGES["float64"]}

SIZES = ("large", "small", "both")


def scaled(inputs: Inputs, low: int, high: int) -> Inputs:
    """Multiply each number by a random power of two. No bias, which would hide small values."""
    rng = np.random.default_rng(0)

    def each(array: np.ndarray) -> np.ndarray:
        factors = np.exp2(rng.integers(low, high + 1, array.shape))
        return np.asarray(array.astype(_wide(array)) * factors, array.dtype)

    return inputs._replace(bias=None).each(each)


def _wide(array: np.ndarray) -> type:
    return np.complex128 if np.iscomplexobj(array) else np.float64


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.geometries(KINDS, others=KINDS)
def test_numbers_of_every_size(subject: Subject, case: Case, dtype: str, size: str) -> None:
    """Products near a hundredth of a type's largest, or a hundred times its smallest normal number.

    Also small numbers next to large ones: the error of an element must not depend on its
    neighbours.
    """
    subject.require(case, dtype)
    ends = RANGES[dtype]
    # Numbers are at most 4, and this many products of two of them are summed in any order.
    room = 4 + max(int(np.log2(n)) + 1 for n in terms(case.spec, case.batch, None)[:3])
    high, low = (ends.largest - room) // 2, (ends.normal + room) // 2
    low_to, high_to = {"large": (high, high), "small": (low, low), "both": (low, high)}[size]
    _verify(subject, without_bias(case), dtype, scaled(draw(case, dtype), low_to, high_to))


@pytest.mark.parametrize("what", ("results", "inputs"))
@pytest.mark.geometries(("2d-mixed", "2d-convolution_plain", "2d-stride_is_kernel"),
    others=("2d-mixed", "2d-convolution_plain"))  # fmt: skip
def test_subnormal_numbers(subject: Subject, case: Case, dtype: str, what: str) -> None:
    """Subnormal numbers, of which a type keeps fewer digits, are not flushed to zero."""
    subject.require(case, dtype)
    if not keeps_subnormals(subject.backend, dtype):
        pytest.skip(f"{subject.backend}: the framework's own products flush subnormals in {dtype}")
    ends = RANGES[dtype]
    inputs = draw(case, dtype)
    if what == "results":
        # The product of two such factors is in the middle of the subnormal range.
        below = (ends.normal + ends.smallest) // 4
        changed = scaled(inputs, below, below)
    else:
        inputs = scaled(inputs, 0, 0)
        down = (ends.normal + ends.smallest) // 2
        up = min(-down, ends.largest - 8)
        small = scaled(inputs, down, down)
        large = scaled(inputs, up, up)
        # One factor of each product is subnormal and the other one large, so that results are
        # normal.
        changed = small._replace(kernel=large.kernel, dy=large.dy)
        names = ("forward", "kernel_grad")
        _verify(subject, without_bias(case), dtype, changed, names)
        return
    _verify(subject, without_bias(case), dtype, changed)


@pytest.mark.geometries(("2d-one_by_one", "2d-mixed"), others=("2d-one_by_one", "2d-mixed"))
def test_sums_that_just_fit(subject: Subject, case: Case, dtype: str) -> None:
    """Sums are just below the largest number of the type, so that no order of summation overflows.

    Formulas for complex products with fewer multiplications have larger intermediate results.
    """
    subject.require(case, dtype)
    case, kind = without_bias(case), numpy_dtype(dtype)
    rng = np.random.default_rng(0)

    def numbers(shape: tuple[int, ...], power: float) -> np.ndarray:
        drawn = rng.choice([-1.0, 1.0], (2, *shape)) * rng.uniform(0.95, 0.97, (2, *shape))
        numbers = drawn[0] + 1j * drawn[1] if kind.kind == "c" else drawn[0]
        return np.asarray(numbers * 2.0**power, kind)

    pairs = {"forward": ("x", "kernel"), "input_grad": ("dy", "kernel"), "kernel_grad": ("x", "dy")}
    zeros = draw(case, dtype).each(np.zeros_like)
    for name, pair in pairs.items():
        count = getattr(terms(case.spec, case.batch, None), name)
        if kind.kind == "c":
            count *= 2  # each part of a complex product is a sum of two products
        power = (RANGES[dtype].largest + 1 - np.log2(count)) / 2
        drawn = {each: numbers(getattr(zeros, each).shape, power) for each in pair}
        _verify(subject, case, dtype, zeros._replace(**drawn), (name,))


@pytest.mark.parametrize("zero", ("x", "kernel", "bias", "all"))
@pytest.mark.geometries(("2d-mixed", "2d-stride_is_kernel", "2d-convolution_same_strided"))
def test_zeros(subject: Subject, case: Case, dtype: str, zero: str) -> None:
    """Zeros give exact zeros, and do not suppress the gradient of the other argument."""
    subject.require(case, dtype)
    inputs = draw(case, dtype)
    changed = ("x", "kernel", "bias") if zero == "all" else (zero,)
    arrays = {name: np.zeros_like(getattr(inputs, name)) for name in changed}
    _verify(subject, case, dtype, inputs._replace(**arrays))


def _verify(
    subject: Subject,
    case: Case,
    dtype: str,
    inputs: Inputs,
    names: tuple[str, ...] = Results._fields,
) -> None:
    """Compare the value, and the gradients of a sample, with their bounds."""
    known = expectation_of(case, dtype, inputs)
    limits = _with_underflow(subject, case, dtype, known)
    arrays = subject.arrays(inputs)
    if "forward" in names:
        y = subject.call(case)(*arrays)
        subject.verify("y", y, arrays[0], known.values.forward, limits.forward)
    found = subject.results(case, inputs)
    for name in names:
        if (host := getattr(found, name)) is not None:
            subject.verify_host(name, host, getattr(known.values, name), getattr(limits, name))


def _with_underflow(subject: Subject, case: Case, dtype: str, known: Expectation) -> Results:
    """The bounds, plus half the smallest positive number of the accumulator dtype for each product.

    A subnormal product is rounded by that much (Higham, eq. 2.8). Where the framework's own
    arithmetic flushes subnormals, the error is up to the smallest normal number.
    """
    held = DTYPES[dtype].accumulator
    keeps = keeps_subnormals(subject.backend, dtype)
    eta = np.longdouble(2.0) ** (RANGES[held].smallest - 1 if keeps else RANGES[held].normal)
    times = 4 if np.iscomplexobj(known.inputs.x) else 1
    counts = (*terms(case.spec, case.batch, None)[:3], prod(known.values.forward.shape))
    return Results(*(
        None if limit is None else limit + times * n * eta
        for n, limit in zip(counts, known.limits, strict=True)
    ))  # fmt: skip
