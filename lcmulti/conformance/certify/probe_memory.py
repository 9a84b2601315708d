"""Peak memory of calls and of each map, and memory that remains after many calls.

`lcmulti.conformance.certify.probe` runs it in another process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from typing import Any

import numpy as np

import lcmulti
from lcmulti.algorithms import reference
from lcmulti.conformance.bounds import compare, dot_bound, terms
from lcmulti.conformance.calls import Inputs
from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.frameworks import COMPILING, framework_of
from lcmulti.conformance.certify.geometries import STATISTICS
from lcmulti.conformance.certify.memory_held import reset_peak, status
from lcmulti.conformance.certify.subject import AUTO, Subject
from lcmulti.conformance.inputs import draw
from lcmulti.dtypes import DTYPES
from lcmulti.errors import UnsupportedError
from lcmulti.geometry.fields import replace_fields
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Resources

__all__ = ["GROWTH", "LARGE", "growth", "memory"]

ROUNDOFF = DTYPES["float32"].roundoff + DTYPES["float64"].roundoff

MEBIBYTE = 2**20
MAX_WORKSPACE = 16 * MEBIBYTE
SLACK = 24 * MEBIBYTE
"""Bytes that a framework may hold besides the arrays, as an allocator that rounds sizes does."""

LARGE = {
    case.name: case
    for case in (
        # Patches of all positions would take 141 MiB, nine times the allowed workspace.
        Case("overlapping", "large", (80, 80, 16), 2, (5, 5), 16, (), None),
        Case("convolution", "large", (80, 80, 16), 2, (5, 5), 16, (0, 1), None),
        Case("tiled", "large", (375, 375, 4), 2, (5, 5), 16, (), None, {"strides": 5}),
    )
}

DTYPES_MEASURED = ("float32", "float16")
"""In half types, float32 sums are held in addition."""
SMALL = {
    "overlapping": "2d-long",
    "convolution": "2d-long_convolution",
    "tiled": "2d-long_tiled",
}


def memory(backend: str, *implementations: str) -> dict[str, dict[str, Any]]:
    """Growth of the peak over the call and over each map, for every case that is served.

    After the first wrong measurement of an implementation, its others are not made.
    """
    found: dict[str, dict[str, Any]] = {}
    for subject in (Subject(backend, each) for each in implementations):
        wrong = ""
        for (name, case), dtype in product(LARGE.items(), DTYPES_MEASURED):
            if subject.refusal(case, dtype) is not None:
                continue
            key = f"{subject.implementation} {name} {dtype}"
            if wrong:
                found[key] = {"error": f"not measured, for {wrong} is wrong"}
                continue
            try:
                found[key] = _memory(subject, case, SMALL[name], dtype)
            except UnsupportedError as error:  # one that needs more may decline
                found[key] = {"refused": str(error)}
            except Exception as error:
                found[key] = {"error": f"{type(error).__name__}: {error}"}
            wrong = key if _is_wrong(found[key]) else ""
    return found


def _is_wrong(found: dict[str, Any]) -> bool:
    too_much = any(each["held"] > each["allowed"] for each in found.get("steps", {}).values())
    far_off = any(each["fraction"] > 1 for each in found.get("deviations", {}).values())
    return "error" in found or too_much or far_off


def _memory(subject: Subject, case: Case, small: str, dtype: str) -> dict[str, Any]:
    expected = _expected(case.name) if dtype == "float32" else {}
    steps: dict[str, dict[str, Any]] = {}
    worst = {}
    with lcmulti.config(max_workspace=MAX_WORKSPACE):
        little = draw(STATISTICS[small], dtype).each(subject.array)
        for _, step in _steps(subject, STATISTICS[small], little):
            step()  # starts thread pools and compilers
        there = draw(case, dtype).each(subject.array)
        workspace = MAX_WORKSPACE
        if subject.implementation != AUTO:
            workspace = subject.maps.workspace(subject.problem(case, dtype))
        for names, step in _steps(subject, case, there):
            if framework_of(subject.backend) in COMPILING:
                step()  # a compiler takes more memory than the call it compiles
            before = reset_peak()
            hosts = [subject.owner.to_numpy(each) for each in step()]
            held = status("VmHWM") - before
            results = 2 * sum(host.nbytes for host in hosts)  # `to_numpy` may copy
            parts = {"results": results, "workspace": workspace, "slack": SLACK}
            steps[", ".join(names)] = {"held": held, "allowed": sum(parts.values())} | parts
            if expected:
                for name, host in zip(names, hosts, strict=True):
                    worst[name] = compare(host[PICKED[name]], *expected[name])._asdict()
            del hosts
    return {"steps": steps, "deviations": worst}


def _steps(
    subject: Subject, case: Case, there: Inputs
) -> Iterator[tuple[tuple[str, ...], Callable[[], tuple[Any, ...]]]]:
    """The measured functions: the call, all gradients, and the map of each gradient alone."""
    pair = there.x, there.kernel
    yield ("forward",), lambda: (subject.call(case)(*pair),)
    if "reverse" in subject.entry.capabilities:

        def whole() -> tuple[Any, ...]:
            value, gradients = subject.owner.vjp(subject.call(case), pair, there.dy)
            return value, *gradients

        yield ("forward", "input_grad", "kernel_grad"), whole
    if subject.implementation != AUTO:
        rest = case.spec, Resources(MAX_WORKSPACE)
        for name in ("input_grad", "kernel_grad"):
            arrays = there.operands()[name]
            yield (name,), lambda name=name, arrays=arrays: (subject.map(name)(*arrays, *rest),)  # type: ignore[misc]


ENDS = [0, -1]
PICKED: dict[str, Any] = {
    "forward": ENDS,
    "input_grad": ENDS,
    "kernel_grad": (..., ENDS, slice(None)),
}
"""The part of large results that is compared: two samples and two channels."""


@cache
def _expected(name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The expected part of each map of a large case, and its bound."""
    case = LARGE[name]
    x, kernel, _, dy = draw(case, "float32").each(lambda array: array.astype(np.float64))
    of_two = replace_fields(case.spec, in_channels=len(ENDS))
    rows: dict[str, tuple[Callable[..., np.ndarray], np.ndarray, np.ndarray, LocalConvSpec]] = {
        "forward": (reference.forward, x[ENDS], kernel, case.spec),
        "input_grad": (reference.input_grad, dy[ENDS], kernel, case.spec),
        "kernel_grad": (reference.kernel_grad, x[..., ENDS], dy, of_two),
    }
    counts = terms(case.spec, case.batch, None)._asdict()
    return {
        name: (
            map_(a, b, spec),
            dot_bound(counts[name], map_(abs(a), abs(b), spec), ROUNDOFF, is_complex=False),
        )
        for name, (map_, a, b, spec) in rows.items()
    }


GROWING = {
    case.name: case
    for case in (
        # Each array and each gradient is larger than the memory that may remain after a call.
        Case("growing", "large", (80, 80, 2), 2, (3, 3), 2, (), None, {"padding": 1}),
        Case("growing convolution", "large", (80, 80, 2), 2, (3, 3), 2, (0, 1), None),
        Case("growing tiled", "large", (120, 120, 2), 4, (3, 3), 2, (), None, {"strides": 3}),
    )
}
CALLS = 40
GROWTH = 64 * 1024
"""Bytes that may remain after a call with gradients."""
ROUNDS = 3
"""What a call keeps is kept in each round; an allocator that takes a reserve does it in one."""


def growth(backend: str, *implementations: str) -> dict[str, float]:
    """Bytes that remain after a call with new values, for the first case that is served."""
    found = {}
    for subject in (Subject(backend, each) for each in implementations):
        served = (c for c in GROWING.values() if subject.refusal(c, "float32") is None)
        if (case := next(served, None)) is not None:
            _repeat(subject, case, CALLS // 2)
            for _ in range(ROUNDS):
                before = reset_peak()
                _repeat(subject, case, CALLS)
                found[subject.implementation] = (reset_peak() - before) / CALLS
                if found[subject.implementation] <= GROWTH:
                    break
    return found


def _repeat(subject: Subject, case: Case, count: int) -> None:
    inputs = draw(case, "float32")
    for _ in range(count):
        inputs = inputs.each(lambda array: -array)
        steps = [step for _, step in _steps(subject, case, inputs.each(subject.array))]
        # The gradients, or the maps of a backend that has none, are the second step.
        for step in steps[: 2 if "reverse" in subject.entry.capabilities else 3]:
            step()
