"""Properties of the operation, for geometries and values that hypothesis chooses.

Values are small integers. So sums and multiples of inputs are exact, and only the results are
rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from lcmulti.conformance.calls import Inputs
from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.expectation import Term, combined, exact
from lcmulti.conformance.certify.frameworks import COMPILING, framework_of
from lcmulti.conformance.certify.random_geometries import CI, KINDS, Examples, geometry
from lcmulti.conformance.certify.subject import CORE_DTYPE, Subject

Draw = Callable[[tuple[int, ...]], np.ndarray]

POOL, COMPILED_POOL = 60, 12
"""Number of geometries in a run of CI. Every example has new values, but not a new shape: some
frameworks compile for each new shape."""


def size_of_pool(subject: Subject, examples: Examples) -> int:
    """Number of geometries for a number of examples."""
    if examples.number > CI[0]:
        return examples.number // 5
    return COMPILED_POOL if framework_of(subject.backend) in COMPILING else POOL


@cache
def pool(
    subject: Subject, size: int, first: int, kinds: tuple[str, ...], padded: bool
) -> list[Case]:
    """*size* random geometries that are served, of all *kinds* in turn, seeds from *first* on."""
    found: list[Case] = []
    for seed in range(first, first + 4 * size):
        for kind in kinds:
            case = geometry(seed, kind)
            if not padded:
                case = replace(case, options={**case.options, "padding": "valid"})
            if len(found) < size and subject.refusal(case, CORE_DTYPE) is None:
                found.append(case)
    return found


def holds(
    subject: Subject,
    examples: Examples,
    check: Callable[[Case, Draw, int, int], None],
    kinds: tuple[str, ...] = KINDS,
    padded: bool = True,
) -> None:
    """Let hypothesis search for a case, values and two factors for which *check* fails."""
    cases = pool(subject, size_of_pool(subject, examples), examples.seed, kinds, padded)
    if not cases:
        pytest.skip(f"{subject}: declines every geometry of this property")

    # No shrinking: cases are small, and a smaller seed is not a simpler case.
    @hypothesis.seed(examples.seed)
    @settings(
        max_examples=examples.number, deadline=None, database=None,
        suppress_health_check=list(HealthCheck), phases=(Phase.generate,),
    )  # fmt: skip
    @given(st.sampled_from(cases), st.integers(0, 2**32 - 1), st.integers(-5, 5), st.integers(1, 5))
    def search(case: Case, seed: int, first: int, second: int) -> None:
        rng = np.random.default_rng(seed)
        note(f"{case.spec}")
        check(case, lambda s: rng.integers(-8, 9, s).astype(CORE_DTYPE), first, second)

    search()


def _close(what: str, got: np.ndarray, expected: np.ndarray, limit: Any) -> None:
    error = np.abs(got.astype(np.float64) - expected)
    assert (error <= limit).all(), f"{what}: off by {error.max()}"


def _shapes(case: Case) -> tuple[tuple[int, ...], ...]:
    """Shapes of ``x``, ``kernel`` and ``dy``."""
    spec = case.spec
    return (case.batch, *spec.input_shape), spec.kernel_shape, (case.batch, *spec.output_shape)


def _forward(
    subject: Subject, case: Case, x: np.ndarray, kernel: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The value in float64, and its bound."""
    y = subject.call(case)(subject.array(x), subject.array(kernel))
    _, limit = combined(case, CORE_DTYPE, Term("forward", x, kernel))
    return subject.owner.to_numpy(y).astype(np.float64), limit


@pytest.mark.parametrize("argument", ["x", "kernel"])
def test_linearity(subject: Subject, argument: str, examples: Examples) -> None:
    """``f(a u + b v) = a f(u) + b f(v)`` in the input and in the kernel."""

    def check(case: Case, draw: Draw, a: int, b: int) -> None:
        x_shape, kernel_shape, _ = _shapes(case)
        u, v = (draw(x_shape if argument == "x" else kernel_shape) for _ in range(2))
        other = draw(kernel_shape if argument == "x" else x_shape)

        def of(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            pair = (array, other) if argument == "x" else (other, array)
            return _forward(subject, case, *pair)

        (got, limit), (of_u, limit_u), (of_v, limit_v) = of(a * u + b * v), of(u), of(v)
        limit = limit + abs(a) * limit_u + abs(b) * limit_v
        _close("f(a u + b v)", got, a * of_u + b * of_v, limit)

    holds(subject, examples, check)


def test_adjointness(named: Subject, examples: Examples) -> None:
    """``<forward(x, k), dy> = <x, input_grad(dy, k)> = <k, kernel_grad(x, dy)>``."""

    def check(case: Case, draw: Draw, a: int, b: int) -> None:
        x, kernel, dy = map(draw, _shapes(case))
        rest = case.spec.computed(), named.resources()
        sides: list[tuple[float, float]] = []
        for name, first, second, other in (
            ("forward", x, kernel, dy),
            ("input_grad", dy, kernel, x),
            ("kernel_grad", x, dy, kernel),
        ):
            got = named.map(name)(named.array(first), named.array(second), *rest)
            _, limit = combined(case, CORE_DTYPE, Term(name, first, second))
            host = named.owner.to_numpy(got).astype(np.float64)
            sides.append((float((host * other).sum()), float((limit * np.abs(other)).sum())))
        (y, allowed), *others = sides
        for name, (side, more) in zip(("input_grad", "kernel_grad"), others, strict=True):
            assert abs(side - y) <= allowed + more, f"{name}: {side}, forward: {y}"

    holds(named, examples, check)


def test_translation(subject: Subject, examples: Examples) -> None:
    """Moving input and kernel by one position along an axis moves the output by one position."""

    def check(case: Case, draw: Draw, a: int, b: int) -> None:
        axis, stride = 0, case.spec.strides[0]
        size = (case.input_shape[0] + stride, *case.input_shape[1:])
        further = replace(case, input_shape=size)
        if subject.refusal(further, CORE_DTYPE) is not None:
            return
        x, kernel = draw(_shapes(further)[0]), draw(_shapes(further)[1])
        rest = kernel if axis in case.spec.shared_axes else kernel[1:]
        y, limit = _forward(subject, further, x, kernel)
        moved, own = _forward(subject, case, x[:, stride:], rest)
        _close("translated", y[:, 1:], moved, limit[:, 1:] + own)

    holds(subject, examples, check, padded=False)


def test_equal_to_a_convolution(subject: Subject, examples: Examples) -> None:
    """With one kernel for all positions, the result is the sum of a convolution's products."""

    def check(case: Case, draw: Draw, a: int, b: int) -> None:
        x, kernel = map(draw, _shapes(case)[:2])
        y, limit = _forward(subject, case, x, kernel)
        _close("convolution", y, _convolution(case, x, kernel), limit)

    holds(subject, examples, check, kinds=("convolution",))


def _convolution(case: Case, x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    one = replace(case, shared_axes=tuple(range(case.spec.ndim)))
    dy = np.zeros((case.batch, *case.spec.output_shape))
    result: np.ndarray = exact(one, Inputs(x, kernel, None, dy)).forward.astype(np.float64)
    return result
