"""What other operations than `local_conv` need of a backend: `Backend.einsum`, and another map."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest

from lcmulti.conformance.bounds import ETA, dot_bound
from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.check_derivatives import forward_mode
from lcmulti.conformance.certify.check_entry import PLAIN
from lcmulti.conformance.certify.expectation import (
    Term,
    combined,
    expectation_of,
    without_bias,
)
from lcmulti.conformance.certify.subject import Subject
from lcmulti.conformance.inputs import draw, numpy_dtype
from lcmulti.dtypes import DTYPES
from lcmulti.geometry.transposed import transposed_arguments
from lcmulti.operations.local_conv import local_conv_transpose
from lcmulti.types import Array

SUMS = {
    "low rank": "abr,rijxy->abijxy",
    "axes of length 1": "abr,rABijxy->abijxy",
    "neighbours": "abijxy,abijxy->aby",
    "total": "aby->",
}
"""The subscripts that `low_rank_kernel` and `smoothness` use, and one that drops axes."""

SIZES = {"a": 4, "b": 3, "i": 2, "j": 3, "x": 5, "y": 7, "r": 60, "A": 1, "B": 1}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SUMS)
def test_sums_of_products(backend: Subject, name: str, dtype: str) -> None:
    """`Backend.einsum`: its value and, if the backend has them, its gradients and its tangent."""
    backend.require(PLAIN, dtype)
    terms, result = SUMS[name].split("->")
    operands = terms.split(",")
    rng = np.random.default_rng(0)

    def drawn(letters: str) -> np.ndarray:
        array = rng.standard_normal((2, *(SIZES[each] for each in letters)))
        return np.asarray(array[0] + 1j * array[1] if is_complex else array[0]).astype(kind)

    kind, is_complex = numpy_dtype(dtype), dtype.startswith("complex")
    arrays, dy = tuple(map(drawn, operands)), drawn(result)
    there, above = tuple(map(backend.array, arrays)), backend.array(dy)

    def function(*arrays: Array) -> Any:
        return backend.owner.einsum(SUMS[name], *arrays)

    got = {"value": function(*there)}
    expected = {"value": _sum(operands, result, arrays, dtype)}
    if "reverse" in backend.entry.capabilities:
        _, gradients = backend.owner.vjp(function, there, above)
        for place, gradient in enumerate(gradients):
            others = [each for i, each in enumerate(operands) if i != place]
            given = (dy, *(each for i, each in enumerate(arrays) if i != place))
            got[f"gradient {place}"] = gradient
            expected[f"gradient {place}"] = _sum([result, *others], operands[place], given, dtype)
    if "forward" in backend.entry.capabilities:
        # The tangent in one argument of a bilinear function is the function of that tangent.
        tangent = drawn(operands[0])
        rest = there[1:]
        _, got["tangent"] = backend.owner.jvp(
            lambda first: function(first, *rest), there[:1], (backend.array(tangent),)
        )
        expected["tangent"] = _sum(operands, result, (tangent, *arrays[1:]), dtype)
    for what, (value, limit) in expected.items():
        backend.verify(what, got[what], there[0], value, limit)


def _sum(
    operands: list[str], result: str, arrays: tuple[np.ndarray, ...], dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    """A sum of products in extended precision, and its bound."""
    letters = set("".join(operands))
    # Repeats along the axes that are summed.
    absent = "".join(each for each in result if each not in letters)
    terms = ",".join([*operands, absent])
    ones = np.ones([SIZES[each] for each in absent])
    wide = np.clongdouble if dtype.startswith("complex") else np.longdouble
    value = np.asarray(np.einsum(f"{terms}->{result}", *(a.astype(wide) for a in arrays), ones))
    size = np.einsum(f"{terms}->{result}", *(np.abs(a.astype(wide)) for a in arrays), ones)
    count = prod(SIZES[each] for each in letters - set(result))
    kind = DTYPES[dtype]
    limit = dot_bound(
        count, np.asarray(size), DTYPES[kind.accumulator].roundoff, dtype.startswith("complex")
    )
    if kind.is_half:
        limit = limit + kind.roundoff * (np.abs(value) + limit) + ETA[dtype]
    return value, limit


@pytest.mark.geometries(
    ("1d-stride_is_kernel_remainder", "2d-channels_first", "2d-same_even_strided",
     "2d-shared_0_bias_1", "2d-convolution_groups", "3d-mixed_first"),
    others=("2d-stride_over_kernel",),
)  # fmt: skip
def test_transposed(subject: Subject, case: Case, dtype: str) -> None:
    """`local_conv_transpose`: the map `input_grad` as an operation that is differentiable."""
    subject.require(case, dtype)
    case = without_bias(case)
    known = expectation_of(case, dtype)
    there = known.inputs.each(subject.array)
    spec = case.spec

    def transposed(x: Array, kernel: Array) -> Any:
        return local_conv_transpose(
            x, kernel, **transposed_arguments(spec), backend=subject.backend,
            implementation=subject.implementation,
        )  # fmt: skip

    pair = there.dy, there.kernel
    found = {"input_grad": transposed(*pair)}
    if "reverse" in subject.entry.capabilities:
        _, gradients = subject.owner.vjp(transposed, pair, there.x)
        found |= zip(("forward", "kernel_grad"), gradients, strict=True)
    for name, got in found.items():
        value, limit = getattr(known.values, name), getattr(known.limits, name)
        subject.verify(f"{name}, transposed", got, there.x, value, limit)
    if "forward" in subject.entry.capabilities and not DTYPES[dtype].is_half:
        p, t = known.inputs, draw(replace(case, name=f"{case.name} along"), dtype)
        along = subject.array(t.dy), subject.array(t.kernel)
        _, tangent = forward_mode(subject, case, transposed, pair, along)
        parts = Term("input_grad", t.dy, p.kernel), Term("input_grad", p.dy, t.kernel)
        subject.verify("tangent, transposed", tangent, there.x, *combined(case, dtype, *parts))
