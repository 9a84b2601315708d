"""Count the threads that compute, by the processor time of each under Linux."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
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
OWN = {"tensorflow": 2, "jax": 3}
"""Threads that take turns on a single core: the caller's, and those of the framework's executor."""
TASKS = Path("/proc/self/task")


def can_count() -> bool:
    """Whether the processor time of each thread can be read."""
    return (TASKS / str(threading.get_native_id()) / "schedstat").exists()


def threads(backend: str, *implementations: str) -> dict[str, dict[str, float]]:
    """With ``threads=1``, the share of processor time that the busiest threads had in each step.

    They are as many as the framework has on a single core. The steps are the call, the call with
    its gradients, and each map by itself: if only one map of three had several threads, their sum
    would hardly show it.
    """
    package = plugins.registry().backends[backend].package
    own = OWN.get(package, 1)
    if package == "jax":
        # JAX takes its number of threads from the affinity alone.
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:1]))
    found = {}
    for subject in (Subject(backend, each) for each in implementations):
        served = [c for c in LARGE.values() if subject.refusal(c, CORE_DTYPE) is None]
        if served:
            with lcmulti.config(threads=1):
                steps = _steps(subject, without_bias(served[0]))
                found[subject.implementation] = {
                    name: _share_of_the_busiest(subject, step, own) for name, step in steps
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


def _share_of_the_busiest(subject: Subject, step: Callable[[], tuple[Any, ...]], own: int) -> float:
    def done() -> None:
        for each in step():
            subject.owner.to_numpy(each)

    done()  # compiles, and starts threads that are started once
    before, start = _times(), time.process_time()
    while time.process_time() - start < ENOUGH:
        done()
    total = time.process_time() - start
    after = _times()
    times = sorted(after[each] - before.get(each, 0.0) for each in after)
    return sum(times[-own:]) / total


def _times() -> dict[str, float]:
    """Seconds of processor time of each living thread."""
    found = {}
    for each in TASKS.iterdir():
        with suppress(OSError):  # it has ended since
            spent = (each / "schedstat").read_text(encoding="ascii").split()[0]
            found[each.name] = int(spent) / 1e9
    return found
