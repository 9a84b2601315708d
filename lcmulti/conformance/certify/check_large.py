"""Calls with millions of products: the same bits each time, and from many threads at once.

Implementations compute small calls in one thread. Only above some size do they use blocks, several
threads or buffers.
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
from lcmulti.conformance.certify.geometries import LARGE, STATISTICS
from lcmulti.conformance.certify.large import expectation_of_any_size
from lcmulti.conformance.certify.subject import CORE_DTYPE, Subject
from lcmulti.conformance.inputs import draw

MEDIUM = ("2d-long", "2d-long_tiled", "2d-long_convolution")
WORKSPACES = ("4MiB", "256MiB")


def rows(few: bool) -> Iterator[tuple[Case, str]]:
    """The cases of the statistics, and larger ones."""
    for case in (*STATISTICS.values(), *LARGE.values()):
        yield case, CORE_DTYPE


@pytest.mark.rows(of=rows)
def test_bits_come_twice_on_larger_arrays(subject: Subject, case: Case, dtype: str) -> None:
    """Calls large enough to be divided among threads are right, with the same bits each time."""
    subject.require(case, dtype)
    known = expectation_of_any_size(case, dtype)
    there = known.inputs.each(subject.array)
    found = results(subject, case, there)
    verify_results(subject, found, known, there.x)
    first = bits(subject, found)
    for _ in range(2):
        again = bits(subject, results(subject, case, there))
        assert again == first, "results differ from one call to the next"


def rows_of_threads(few: bool) -> Iterator[tuple[Case, str]]:
    """A smaller and a larger case of each kind."""
    for name in (*MEDIUM, *(name for name in LARGE if name != "large-batch")):
        yield (STATISTICS | LARGE)[name], CORE_DTYPE


@pytest.mark.rows(of=rows_of_threads)
def test_many_threads(subject: Subject, case: Case, dtype: str) -> None:
    """Threads that share a kernel, but not inputs and settings, get the bits they get alone."""
    subject.require(case, dtype)
    case, threads, rounds = without_bias(case), *((3, 2) if case.name in LARGE else (8, 6))
    shared = subject.array(draw(case, dtype).kernel)
    drawn = [draw(replace(case, name=f"{case.name} {i}"), dtype) for i in range(threads)]
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
        # In copies of the context: a new thread would not have its settings.
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
    """Switch threads more often than usual."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
