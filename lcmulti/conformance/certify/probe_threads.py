"""Count the threads that compute, by the processor time of each under Linux."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lcmulti
from lcmulti import plugins
from lcmulti.choosing.settings import current
from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.expectation import without_bias
from lcmulti.conformance.certify.geometries import LARGE
from lcmulti.conformance.certify.subject import AUTO, CORE_DTYPE, Subject
from lcmulti.conformance.inputs import draw
from lcmulti.plugins.contract import Resources

__all__ = ["can_count", "threads"]

ENOUGH = 0.15
"""Seconds of processor time to measure, for each step."""
TASKS = Path("/proc/self/task")


def can_count() -> bool:
    """Whether the processor time of each thread can be read."""
    return (TASKS / str(threading.get_native_id()) / "schedstat").exists()


def threads(backend: str, *implementations: str) -> dict[str, dict[str, float]]:
    """With ``threads=1``, the share of all processor time that the busiest thread had in each step.

    The steps are the call, the call with its gradients, and each map by itself: if only one map of
    three had several threads, their sum would hardly show it.
    """
    if plugins.registry().backends[backend].package == "jax":
        # JAX takes its number of threads from the affinity alone.
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:1]))
    found = {}
    for subject in (Subject(backend, each) for each in implementations):
        served = [c for c in LARGE.values() if subject.refusal(c, CORE_DTYPE) is None]
        if served:
            with lcmulti.config(threads=1):
                steps = _steps(subject, without_bias(served[0]))
                found[subject.implementation] = {
                    name: _share_of_the_busiest(subject, step) for name, step in steps
                }
    return found


def _steps(subject: Subject, case: Case) -> Iterator[tuple[str, Callable[[], tuple[Any, ...]]]]:
    there = draw(case, CORE_DTYPE).each(subject.array)
    call, pair = subject.call(case), (there.x, there.kernel)
    yield "forward", lambda: (call(*pair),)
    if "reverse" in subject.entry.capabilities:
        yield "gradients", lambda: tuple(subject.owner.vjp(call, pair, there.dy)[1])
    if subject.implementation != AUTO:
        rest = case.spec, Resources(current().max_workspace, current().threads)
        for name, arrays in there.operands().items():
            yield f"{name} alone", partial(_map, subject, name, *arrays, *rest)


def _map(subject: Subject, name: str, *arguments: Any) -> tuple[Any, ...]:
    return (subject.map(name)(*arguments),)


def _share_of_the_busiest(subject: Subject, step: Callable[[], tuple[Any, ...]]) -> float:
    def done() -> None:
        for each in step():
            subject.owner.to_numpy(each)

    done()  # compiles, and starts threads that are started once
    before, start = _times(), time.process_time()
    while time.process_time() - start < ENOUGH:
        done()
    total = time.process_time() - start
    after = _times()
    return max(after[each] - before.get(each, 0.0) for each in after) / total


def _times() -> dict[str, float]:
    """Seconds of processor time of each living thread."""
    return {
        each.name: int((each / "schedstat").read_text(encoding="ascii").split()[0]) / 1e9
        for each in TASKS.iterdir()
    }
