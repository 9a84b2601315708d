"""Values of the operation and of its gradients, element by element, on the fixed geometries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lcmulti.conformance.bounds import Expected, bounds, expect
from lcmulti.conformance.calls import MAPS, Inputs
from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.expectation import expectation, expectation_of, without_bias
from lcmulti.conformance.certify.geometries import COVERING, GEOMETRIES
from lcmulti.conformance.certify.subject import AUTO, CORE_DTYPE, Subject
from lcmulti.conformance.inputs import draw

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
@pytest.mark.geometries(COVERING, others=COVERING, computed=True)
def test_maps(named: Subject, case: Case, dtype: str) -> None:
    """The three maps of the implementation, called directly, as no backend need do."""
    named.require(case, dtype)
    bare = without_bias(case)
    inputs, values, _, limits = expectation_of(bare, dtype)
    there = inputs.each(named.array)
    for name, pair in there.operands().items():
        got = named.map(name)(*pair, case.spec, named.resources())
        named.verify(name, got, there.x, getattr(values, name), getattr(limits, name))


@pytest.mark.core
@pytest.mark.geometries(GEOMETRIES, others=COVERING)
def test_gradients(subject: Subject, case: Case, dtype: str) -> None:
    """The backend's own reverse mode, in all arguments at once; without one, the maps' results."""
    subject.require(case, dtype)
    inputs, values, _, limits = expectation(case.name, dtype)
    if "reverse" not in subject.entry.capabilities:
        found = subject.results(case, inputs)
        for name, host in found._asdict().items():
            if host is not None:
                subject.verify_host(name, host, getattr(values, name), getattr(limits, name))
        return
    arrays, dy = subject.arrays(inputs), subject.array(inputs.dy)
    value, gradients = subject.owner.vjp(subject.call(case), arrays, dy)
    names = MAPS[: 1 + len(arrays)]
    for name, got in zip(names, (value, *gradients), strict=True):
        subject.verify(name, got, arrays[0], getattr(values, name), getattr(limits, name))


ONE_BY_ONE = ("1d-causal_dilated", "2d-channels_first", "2d-reflect_asymmetric", "2d-groups",
    "2d-stride_is_kernel_remainder", "2d-convolution_plain", "3d-plain")  # fmt: skip


@pytest.mark.geometries(ONE_BY_ONE)
@pytest.mark.capabilities("reverse")
def test_gradient_of_one_argument(subject: Subject, case: Case, dtype: str) -> None:
    """Asked for one gradient, as in a first layer or with frozen weights, it is the same."""
    subject.require(case, dtype)
    inputs, values, _, limits = expectation(case.name, dtype)
    arrays, dy = subject.arrays(inputs), subject.array(inputs.dy)
    for place, name in enumerate(MAPS[1 : 1 + len(arrays)]):

        def of_one(array: Any, place: int = place) -> Any:
            return subject.call(case)(*arrays[:place], array, *arrays[place + 1 :])

        _, (got,) = subject.owner.vjp(of_one, (arrays[place],), dy)
        subject.verify(name, got, arrays[0], getattr(values, name), getattr(limits, name))


SIZES = {"large": (40, 40), "small": (-40, -40), "both": (-20, 20)}
"""Powers of two that numbers are multiplied with, from and to."""


def scaled(inputs: Inputs, low: int, high: int) -> Inputs:
    """Each number times a random power of two; without the bias, which would hide a small value."""
    rng = np.random.default_rng(0)

    def each(array: np.ndarray) -> np.ndarray:
        factors = np.exp2(rng.integers(low, high + 1, array.shape))
        return np.asarray(array * factors, array.dtype)

    return inputs._replace(bias=None).each(each)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.geometries(
    ("2d-mixed", "2d-stride_is_kernel", "2d-convolution_plain", "2d-convolution_same_strided")
)
def test_numbers_of_every_size(subject: Subject, case: Case, dtype: str, size: str) -> None:
    """Errors are relative: numbers near the ends of the range are as right as those near 1.

    And small ones beside large ones: an element has no part in the error of its neighbours.
    """
    subject.require(case, dtype)
    _verify_all(subject, without_bias(case), dtype, scaled(draw(case, dtype), *SIZES[size]))


@pytest.mark.geometries((), others=("2d-mixed", "2d-convolution_plain"), dtypes=("float16",))
def test_subnormal_numbers(subject: Subject, case: Case, dtype: str) -> None:
    """Results so small that float16 holds fewer digits of them: fewer, and not none."""
    subject.require(case, dtype)
    _verify_all(subject, without_bias(case), dtype, scaled(draw(case, dtype), -8, -8))


@pytest.mark.parametrize("zero", ("x", "kernel", "bias", "all"))
@pytest.mark.geometries(("2d-mixed", "2d-stride_is_kernel", "2d-convolution_same_strided"))
def test_zeros(subject: Subject, case: Case, dtype: str, zero: str) -> None:
    """Zeros give zeros, exactly, and keep no gradient from the other argument."""
    subject.require(case, dtype)
    inputs = draw(case, dtype)
    changed = ("x", "kernel", "bias") if zero == "all" else (zero,)
    arrays = {name: np.zeros_like(getattr(inputs, name)) for name in changed}
    _verify_all(subject, case, dtype, inputs._replace(**arrays))


MANY = {
    case.name: case
    for case in (
        Case("many positions", "many", (90, 110, 2), 3, (3, 2), 1, (), (), {"padding": "same"}),
        Case("many samples", "many", (5, 6, 3), 2, (2, 3), 700),
        Case("many channels", "many", (4, 5, 150), 70, (2, 2), 3),
        Case("many filters", "many", (4, 5, 3), 300, (2, 3), 2),
        Case("many taps", "many", (40, 36, 2), 2, (31, 27), 2, (), (0, 1)),
        Case("many groups", "many", (5, 4, 64), 128, (2, 3), 2, (), (), {"groups": 64}),
        Case("many strides", "many", (60, 50, 2), 3, (20, 10), 2, (), (), {"strides": (20, 10)}),
        Case("a long line", "many", (70_002, 1), 2, (3,)),
        Case("batch of 4", "many", (9, 8, 7), 16, (5, 4), 4, (0,), (1,), {"padding": "same"}),
        Case("batch of 8", "many", (12, 9, 8), 16, (7, 2), 8, (), (),
            {"groups": 4, "dilation": (1, 5)}),
        Case("batch of 32", "many", (16, 23, 4), 7, (3, 7), 32, (), (0, 1),
            {"strides": (5, 8), "dilation": (4, 2)}),
        Case("batch of 64", "many", (13, 12), 32, (9,), 64, (), (), {"padding": 4}),
        Case("many shared", "many", (60, 50, 3), 4, (3, 2), 2, (0, 1), (0, 1)),
    )
}  # fmt: skip
"""Each larger in one way than any fixed geometry: what is cut into blocks, and what is left."""


@pytest.mark.parametrize("name", MANY)
def test_value_of_many(subject: Subject, name: str) -> None:
    """Right in every element, and in gradients, of arrays that are not small."""
    case = MANY[name]
    subject.require(case, CORE_DTYPE)
    inputs = draw(case, CORE_DTYPE)
    expected = expect(case, inputs)
    _verify_all(subject, case, CORE_DTYPE, inputs, expected)


def _verify_all(
    subject: Subject, case: Case, dtype: str, inputs: Inputs, expected: Expected | None = None
) -> None:
    """Hold value and gradients of some inputs to their bounds."""
    if expected is None:
        known = expectation_of(case, dtype, inputs)
        values, limits = known.values, known.limits
    else:
        values, limits = expected.values, bounds(case, expected, inputs.bias, dtype)
    arrays = subject.arrays(inputs)
    y = subject.call(case)(*arrays)
    subject.verify("y", y, arrays[0], values.forward, limits.forward)
    found = subject.results(case, inputs)
    for name, host in found._asdict().items():
        if host is not None:
            subject.verify_host(name, host, getattr(values, name), getattr(limits, name))


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
