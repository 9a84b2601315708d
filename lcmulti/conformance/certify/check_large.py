"""Calls of millions of products: the same bits each time, and from many threads at once.

Small calls are computed by one thread as they stand. What is cut into blocks, shared out among
threads or kept in buffers is so beyond some size alone.
"""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

import lcmulti
from lcmulti.conformance.calls import Inputs
from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.check_contract import bits, results, verify_results
from lcmulti.conformance.certify.expectation import without_bias
from lcmulti.conformance.certify.geometries import STATISTICS
from lcmulti.conformance.certify.large import expectation_of_any_size
from lcmulti.conformance.certify.subject import CORE_DTYPE, Subject
from lcmulti.conformance.inputs import draw

PAD = {"padding": 1}
LARGE = {
    case.name: case
    for case in (
        Case("large", "large", (14, 14, 32), 32, (3, 3), 4, (), (), PAD),
        Case("large-tiled", "large", (32, 32, 16), 32, (4, 4), 16, (), (), {"strides": 4}),
        Case("large-convolution", "large", (14, 14, 32), 32, (3, 3), 4, (0, 1), (0, 1), PAD),
        Case("large-batch", "large", (8, 8, 8), 16, (3, 3), 1024),
    )
}
"""Seven to forty million products."""

MEDIUM = ("2d-long", "2d-long_tiled", "2d-long_convolution")
WORKSPACES = ("4MiB", "256MiB")


@pytest.mark.parametrize("name", (*STATISTICS, *LARGE))
def test_bits_come_twice_on_larger_arrays(subject: Subject, name: str) -> None:
    """Large enough to be split among threads; of the largest, elements are right, too."""
    case = (STATISTICS | LARGE)[name]
    subject.require(case, CORE_DTYPE)
    there = draw(case, CORE_DTYPE).each(subject.array)
    first = bits(subject, results(subject, case, there))
    for _ in range(3):
        again = bits(subject, results(subject, case, there))
        assert again == first, "results differ from one call to the next"


@pytest.mark.parametrize("name", tuple(LARGE)[:3])
def test_values_of_large_calls(subject: Subject, name: str) -> None:
    """Each element of the value and of all gradients."""
    case = LARGE[name]
    subject.require(case, CORE_DTYPE)
    known = expectation_of_any_size(case, CORE_DTYPE)
    there = known.inputs.each(subject.array)
    verify_results(subject, results(subject, case, there), known, there.x)


@pytest.mark.parametrize(
    "name, threads, rounds",
    [
        *((name, 8, 6) for name in MEDIUM),
        *((name, 3, 2) for name in LARGE if name != "large-batch"),
    ],
)
def test_many_threads(subject: Subject, name: str, threads: int, rounds: int) -> None:
    """Every thread has the bits it has alone, with its own numbers and settings, and one kernel."""
    case = without_bias((STATISTICS | LARGE)[name])
    subject.require(case, CORE_DTYPE)
    shared = subject.array(draw(case, CORE_DTYPE).kernel)
    drawn = [draw(replace(case, name=f"{name} {i}"), CORE_DTYPE) for i in range(threads)]
    arrays = [each.each(subject.array)._replace(kernel=shared) for each in drawn]
    alone = [[_bits_with(subject, case, each, held) for held in WORKSPACES] for each in arrays]
    start, wrong = threading.Barrier(threads), []

    def work(number: int) -> None:
        try:
            start.wait(60)
            for i in range(rounds):
                which = (number + i) % len(WORKSPACES)
                found = _bits_with(subject, case, arrays[number], WORKSPACES[which])
                for what, got in found.items():
                    same = got == alone[number][which][what]
                    assert same, f"{what} is not what it is without other threads"
        except BaseException as error:
            wrong.append(f"thread {number}: {type(error).__name__}: {error}")

    with _switching_often():
        # In copies of the context, whose settings a new thread would not have.
        runs = [contextvars.copy_context().run for _ in range(threads)]
        workers = [threading.Thread(target=run, args=(work, i)) for i, run in enumerate(runs)]
        for each in workers:
            each.start()
        for each in workers:
            each.join()
    assert not wrong, f"{len(wrong)} of {threads} threads: {wrong[0]}"


def _bits_with(subject: Subject, case: Case, there: Inputs, held: str) -> dict[str, Any]:
    with lcmulti.config(max_workspace=held):
        return bits(subject, results(subject, case, there))


@contextmanager
def _switching_often() -> Iterator[None]:
    """Let threads meet more often than they would."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
