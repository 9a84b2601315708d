"""A call keeps nothing for the next one, and changes nothing else in the process."""

from __future__ import annotations

import gc
import os
import random
import threading
import warnings
import weakref
from collections import Counter
from typing import Any

import numpy as np
import pytest

from lcmulti.conformance.case import Case
from lcmulti.conformance.certify import probe
from lcmulti.conformance.certify.check_contract import results, verify_results
from lcmulti.conformance.certify.expectation import expectation_of, without_bias
from lcmulti.conformance.certify.geometries import GEOMETRIES, STATISTICS
from lcmulti.conformance.certify.subject import AUTO, CORE_DTYPE, Subject
from lcmulti.conformance.inputs import draw
from lcmulti.errors import UnsupportedError
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Implementation, Resources
from lcmulti.types import Array

KINDS = ("2d-plain", "2d-stride_is_kernel", "2d-convolution_plain", "2d-one_of_each", "2d-mixed")
kinds = pytest.mark.geometries(KINDS)


@kinds
def test_arrays_changed_between_calls(subject: Subject, case: Case, dtype: str) -> None:
    """A call uses the values that an array has now, not earlier or later ones."""
    subject.require(case, dtype)
    inputs = draw(case, dtype)
    there = inputs.each(subject.array)
    for name in ("x", "kernel", "bias", "dy"):
        before = results(subject, case, there)
        kept = {each: subject.owner.to_numpy(got).tobytes() for each, got in before.items()}
        fresh = np.ascontiguousarray(getattr(inputs, name)[::-1] + 1)
        try:
            getattr(there, name)[...] = subject.array(fresh)
        except (TypeError, AttributeError):
            pytest.skip(f"{subject.backend}: arrays cannot be changed")
        for each, got in before.items():
            same = subject.owner.to_numpy(got).tobytes() == kept[each]
            assert same, f"{each} changed with {name}"
        inputs = inputs._replace(**{name: fresh})
        known = expectation_of(case, dtype, inputs)
        verify_results(subject, results(subject, case, there), known, there.x)


@kinds
def test_arrays_are_let_go(subject: Subject, case: Case, dtype: str) -> None:
    """The arrays of a finished call are released."""
    subject.require(case, dtype)
    arrays = subject.arrays(draw(case, dtype))
    dy = subject.array(draw(case, dtype).dy)
    y = subject.call(case)(*arrays)
    results = [y]
    if "reverse" in subject.entry.capabilities:
        results += subject.owner.vjp(subject.call(case), arrays, dy)[1]
    try:
        held = {
            name: weakref.ref(each) for name, each in zip(("x", "kernel"), arrays, strict=False)
        }
    except TypeError:
        pytest.skip(f"{subject.backend}: arrays take no weak references")
    del arrays, dy, y, results
    gc.collect()
    for name, reference in held.items():
        assert reference() is None, f"{name} is still held after the call"


def _surroundings() -> dict[str, Any]:
    return {
        "the environment": dict(os.environ),
        "the working folder": os.getcwd(),  # noqa: PTH109
        "NumPy's error state": np.geterr(),
        "NumPy's random state": repr(np.random.get_state()),  # noqa: NPY002
        "Python's random state": random.getstate(),
        "the warning filters": list(warnings.filters),
        "the number of threads": threading.active_count(),
        "garbage collection": gc.isenabled(),
        "the arithmetic of this thread": _arithmetic(),
    }


def _arithmetic() -> tuple[float, ...]:
    """A computation whose result depends on the rounding mode and on flushing subnormal numbers.

    A library compiled with ``-ffast-math`` makes the thread that loads it flush them.
    """
    one, tiny = np.array([1, -1], np.float32), np.float32(2.0**-126)
    return (*(one / np.float32(3)).tolist(), float(tiny / 2), float(tiny / 4 * 4))


ARITHMETIC = (*np.array([1 / 3, -1 / 3], np.float32).tolist(), 2.0**-127, 2.0**-126)


@kinds
def test_nothing_else_is_changed(
    subject: Subject, case: Case, dtype: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A call changes no random state, no error handling and no environment, and prints nothing."""
    subject.require(case, dtype)
    inputs = draw(case, dtype)
    subject.results(case, inputs)  # loading and compiling, which happen once, are not counted
    before = _surroundings() | {"the arithmetic of this thread": ARITHMETIC}
    capfd.readouterr()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        subject.results(case, inputs)
        after = _surroundings()
    for name, state in after.items():
        wanted = filters if name == "the warning filters" else before[name]
        assert state == wanted, f"{name} was changed"
    said = [str(each.message) for each in warned] + [each for each in capfd.readouterr() if each]
    assert not said, f"said {said[0]!r}"


class Counted:
    """An implementation that counts its calls."""

    def __init__(self, maps: Implementation) -> None:
        self.maps, self.calls, self.lock = maps, Counter[str](), threading.Lock()
        self.decline, self.workspace = maps.decline, maps.workspace

    def _counted(self, name: str, *arguments: Any) -> Any:
        with self.lock:
            self.calls[name] += 1
        return getattr(self.maps, name)(*arguments)

    def forward(self, x: Array, kernel: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        """See `Implementation.forward`."""
        return self._counted("forward", x, kernel, spec, resources)

    def input_grad(
        self, dy: Array, kernel: Array, spec: LocalConvSpec, resources: Resources
    ) -> Array:
        """See `Implementation.input_grad`."""
        return self._counted("input_grad", dy, kernel, spec, resources)

    def kernel_grad(self, x: Array, dy: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        """See `Implementation.kernel_grad`."""
        return self._counted("kernel_grad", x, dy, spec, resources)


def served(subject: Subject) -> Case:
    """The first of `KINDS` that is served; skip if there is none."""
    for name in KINDS:
        if subject.refusal(GEOMETRIES[name], CORE_DTYPE) is None:
            return without_bias(GEOMETRIES[name])
    pytest.skip(f"{subject}: declines each of {', '.join(KINDS)}")


def test_close_computes_by_the_implementation(named: Subject) -> None:
    """`Backend.close` uses the implementation it is given, also for gradients."""
    case = served(named)
    known, spy = expectation_of(case, CORE_DTYPE), Counted(named.maps)
    operation = named.owner.close(spy, named.implementation_entry)
    arrays, rest = named.arrays(known.inputs), (case.spec.computed(), named.resources())
    y = operation(arrays[0], arrays[1], *rest)
    named.verify("y", y, arrays[0], known.values.forward, known.limits.forward)
    wanted = {"forward"}
    if "reverse" in named.entry.capabilities:
        wanted |= {"input_grad", "kernel_grad"}
        dy = named.array(known.inputs.dy)
        named.owner.vjp(lambda x, kernel: operation(x, kernel, *rest), arrays, dy)
    assert set(spy.calls) >= wanted, f"asked for {wanted}, called {dict(spy.calls)}"


def test_the_hundredth_call(subject: Subject) -> None:
    """The value and the gradients of each of a hundred calls are right."""
    case = served(subject)
    known = expectation_of(case, CORE_DTYPE)
    there = known.inputs.each(subject.array)
    for number in range(1, 101):
        found = results(subject, case, there)
        if number % 10 == 0:
            verify_results(subject, found, known, there.x)


def test_planning_imports_nothing(backend: Subject) -> None:
    """Reading the records imports no framework, so that nobody waits for one that is not used."""
    found = probe.run("lazy", backend.entry.package)
    assert not found, f"reading the plugins imports {backend.entry.package}"


def test_every_declined_call_is_refused(named: Subject) -> None:
    """Named for a geometry it declines, it raises; ``auto`` uses another implementation."""
    seen: set[str] = set()
    auto = Subject(named.backend, AUTO, named.device)
    for case in (*GEOMETRIES.values(), *STATISTICS.values()):
        reason = named.refusal(case, CORE_DTYPE)
        if reason is None or reason in seen:
            continue
        seen.add(reason)
        arrays = named.arrays(draw(case, CORE_DTYPE))
        with pytest.raises(UnsupportedError, match=named.implementation):
            named.call(case)(*arrays)
        auto.verify_kind("y", auto.call(case)(*arrays), arrays[0],
            (case.batch, *case.spec.output_shape))  # fmt: skip
