"""Promises other than values: inputs do not change, results are new arrays with the same bits each
time, any memory layout is right, and NaN or infinity reaches only elements that depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

from lcmulti.conformance.calls import Inputs
from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.expectation import (
    Expectation,
    Term,
    evaluate,
    expectation,
    expectation_of,
    without_bias,
)
from lcmulti.conformance.certify.geometries import CONTRACT
from lcmulti.conformance.certify.subject import AUTO, Subject
from lcmulti.conformance.inputs import draw
from lcmulti.types import Array

contract = pytest.mark.geometries(CONTRACT)

SEEING = ("1d-plain", "2d-stride_is_kernel_remainder", "2d-dilation_strided", "2d-groups",
    "2d-convolution_plain", "2d-convolution_dilated", "2d-convolution_stride_over_kernel",
    "3d-plain")  # fmt: skip
"""Without padding, because an implementation may multiply its zeros or leave them out."""

PADDED = ("2d-same_even_strided", "2d-padding_asymmetric", "3d-mixed_first")
"""Here, only elements that do not depend on the padding are compared."""


def results(subject: Subject, case: Case, there: Inputs) -> dict[str, Any]:
    """All results of a call: value, gradients if the backend has them, and the three maps."""
    arrays = there.given
    found = {"y": subject.call(case)(*arrays)}
    if "reverse" in subject.entry.capabilities:
        _, gradients = subject.owner.vjp(subject.call(case), arrays, there.dy)
        found |= zip(("dx", "dkernel", "dbias"), gradients, strict=False)
    if subject.implementation != AUTO and case.spec == case.spec.computed():
        rest = case.spec, subject.resources()
        found["forward"] = subject.map("forward")(there.x, there.kernel, *rest)
        found["input_grad"] = subject.map("input_grad")(there.dy, there.kernel, *rest)
        found["kernel_grad"] = subject.map("kernel_grad")(there.x, there.dy, *rest)
    return found


MAP_OF = {
    "y": "forward", "forward": "forward", "dx": "input_grad", "input_grad": "input_grad",
    "dkernel": "kernel_grad", "kernel_grad": "kernel_grad", "dbias": "bias_grad",
}  # fmt: skip
"""The names of `results`."""


def verify_results(
    subject: Subject, found: dict[str, Any], known: Expectation, like: Array
) -> None:
    """Compare `results` with what is expected."""
    for name, got in found.items():
        if name == "forward" and known.inputs.bias is not None:
            continue  # the map adds no bias
        value, limit = getattr(known.values, MAP_OF[name]), getattr(known.limits, MAP_OF[name])
        subject.verify(name, got, like, value, limit)


def bits(subject: Subject, arrays: dict[str, Array]) -> dict[str, bytes]:
    """The bytes of arrays, to be compared."""
    return {name: subject.owner.to_numpy(each).tobytes() for name, each in arrays.items()}


def _named(inputs: Inputs) -> dict[str, Any]:
    return {name: each for name, each in inputs._asdict().items() if each is not None}


@contract
def test_inputs_are_left_alone_and_bits_come_twice(
    subject: Subject, case: Case, dtype: str
) -> None:
    """Two calls with the same arrays do not change them, and return the same bits."""
    subject.require(case, dtype)
    there = draw(case, dtype).each(subject.array)
    before = bits(subject, _named(there))
    first = bits(subject, results(subject, case, there))
    for name, now in bits(subject, _named(there)).items():
        assert now == before[name], f"{name} was changed by the call"
    for name, now in bits(subject, results(subject, case, there)).items():
        assert now == first[name], f"{name} differs from one call to the next"


@contract
def test_results_are_new_arrays(subject: Subject, case: Case, dtype: str) -> None:
    """A result shares no memory with an input or with the result of another call."""
    subject.require(case, dtype)
    to_numpy = subject.owner.to_numpy
    inputs = draw(case, dtype)
    there = inputs.each(subject.array)
    first = results(subject, case, there)
    kept = bits(subject, first)
    second = results(subject, case, inputs.each(lambda array: subject.array(array[...] + 1)))
    for name, array in first.items():
        host = to_numpy(array)
        for other, given in _named(there).items():
            assert not np.shares_memory(host, to_numpy(given)), f"{name} is a view of {other}"
        for other, later in second.items():
            assert not np.shares_memory(host, to_numpy(later)), f"{name} lies in {other}'s memory"
        assert to_numpy(array).tobytes() == kept[name], f"{name} was changed by a later call"
        if isinstance(array, np.ndarray):
            assert array.flags.writeable, f"{name} cannot be written to"


def layouts(array: Array) -> Iterator[tuple[str, Array]]:
    """Arrays with equal values in every memory layout (a broadcast one repeats one entry)."""
    yield "all axes turned", np.flip(np.flip(array).copy())
    for axis in range(MOST_AXES):
        turned = np.flip(array, axis).copy() if axis < array.ndim else array
        yield f"axis {axis} turned", np.flip(turned, axis) if axis < array.ndim else array
    wider = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wider[..., ::2] = array
    yield "every other", wider[..., ::2]
    yield "Fortran order", np.asfortranarray(array)
    read_only = array.copy()
    read_only.flags.writeable = False
    yield "read-only", read_only
    yield "broadcast", np.broadcast_to(array[:1], array.shape)
    yield "broadcast along the last axis", np.broadcast_to(array[..., :1], array.shape)
    unaligned = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    unaligned[...] = array
    yield "unaligned", unaligned


MOST_AXES = 6
"""Number of axes of a 2D kernel, which has the most."""
KINDS = (
    "all axes turned", *(f"axis {axis} turned" for axis in range(MOST_AXES)), "every other",
    "Fortran order", "read-only", "broadcast", "broadcast along the last axis", "unaligned",
)  # fmt: skip


@pytest.mark.parametrize("kind", [*KINDS, "axes moved"])
@pytest.mark.geometries(("2d-plain", "2d-stride_is_kernel", "2d-convolution_groups", "2d-mixed"))
def test_memory_of_every_kind(subject: Subject, case: Case, dtype: str, kind: str) -> None:
    """Results do not depend on the memory layout of one array or of all."""
    subject.require(case, dtype)

    def lain(array: np.ndarray) -> np.ndarray:
        return array if kind == "axes moved" else dict(layouts(array))[kind]

    inputs = draw(case, dtype).each(lain)
    known = expectation_of(case, dtype, inputs.each(np.array))
    before = {name: array.copy() for name, array in _named(inputs).items()}
    there = inputs.each(subject.array)
    if kind == "axes moved":  # a view in frameworks with strided arrays, a copy in others
        move = subject.owner.move_axis
        there = inputs.each(lambda array: move(subject.array(np.moveaxis(array, 0, -1)), -1, 0))
    plain = known.inputs.each(lambda array: subject.array(np.array(array, order="C")))
    alone = [plain._replace(**{name: getattr(there, name)}) for name in ("x", "kernel", "dy")]
    for each in (there, *alone):
        verify_results(subject, results(subject, case, each), known, plain.x)
    for name, array in _named(inputs).items():
        assert np.array_equal(array, before[name]), f"{name} was changed by the call"


@pytest.mark.geometries(("2d-one_by_one_square",))
def test_one_array_twice(subject: Subject, case: Case, dtype: str) -> None:
    """The cotangent may be the input itself: ``y.backward(x)``."""
    subject.require(case, dtype)
    inputs = draw(case, dtype)
    known = expectation_of(case, dtype, inputs._replace(dy=inputs.x))
    there = known.inputs.each(subject.array)
    same = there._replace(dy=there.x)
    verify_results(subject, results(subject, case, same), known, there.x)


@pytest.mark.geometries(("2d-plain", "2d-stride_is_kernel", "2d-convolution_plain"))
def test_numpy_in_numpy_out(subject: Subject, case: Case, dtype: str) -> None:
    """NumPy arrays are converted, computed and converted back."""
    subject.require(case, dtype)
    known = expectation(case.name, dtype)
    with subject.placed():
        y = subject.call(case)(*known.inputs.given)
    assert type(y) is np.ndarray, f"container {type(y)}"
    assert (y.shape, y.dtype) == (known.values.forward.shape, known.inputs.x.dtype)
    assert (np.abs(y - known.values.forward) <= known.limits.forward).all()


UNPADDED = (("forward", 0), ("input_grad", 0), ("kernel_grad", 0))
"""Maps, and the argument of each that is never multiplied with a zero of the padding."""

POISON = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf, "inf among zeros": np.inf}
"""In the last one, infinity is multiplied with zeros of the caller, which gives NaN."""


@pytest.mark.parametrize("poison", POISON)
@pytest.mark.geometries((*SEEING, *PADDED))
def test_not_a_number_reaches_what_sees_it(
    subject: Subject, case: Case, dtype: str, poison: str
) -> None:
    """A NaN or an infinity in one element reaches exactly the elements whose sums include it."""
    subject.require(case, dtype)
    case = without_bias(case)
    inputs = draw(case, dtype)
    computed = subject.implementation != AUTO and case.spec == case.spec.computed()
    maps = {"forward": ("x", "kernel")}
    if computed or "reverse" in subject.entry.capabilities:
        maps |= {"input_grad": ("dy", "kernel"), "kernel_grad": ("x", "dy")}
    for (name, pair), where in product(maps.items(), (0, 1)):
        if case.name in PADDED and (name, where) not in UNPADDED:
            continue
        if case.spec.is_convolution and (name, where) == ("input_grad", 1):
            continue  # the adjoint of a convolution is a convolution of a padded array
        arrays = [np.array(getattr(inputs, each)) for each in pair]
        sick = arrays[where]
        middle = tuple(n // 2 for n in sick.shape)
        sick[middle] = POISON[poison]
        if "zeros" in poison:
            arrays[1 - where][...] = 0
        seen = [
            np.zeros_like(sick) if i == where else np.ones_like(a) for i, a in enumerate(arrays)
        ]
        seen[where][middle] = 1
        expected = evaluate(case, Term(name, *seen)) != 0
        there = [subject.array(each) for each in arrays]
        if name == "forward":
            got = subject.call(case)(*there)
        elif computed:
            got = subject.map(name)(*there, case.spec, subject.resources())
        else:
            rest = inputs._replace(**dict(zip(pair, arrays, strict=True))).each(subject.array)
            _, gradients = subject.owner.vjp(subject.call(case), (rest.x, rest.kernel), rest.dy)
            got = gradients[name == "kernel_grad"]
        reached = ~np.isfinite(subject.owner.to_numpy(got))
        what = f"{name} with {poison} in {pair[where]} at {middle}"
        assert not (reached & ~expected).any(), f"{what}: reached elements that do not see it"
        assert not (expected & ~reached).any(), f"{what}: elements that see it are finite"
