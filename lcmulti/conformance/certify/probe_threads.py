"""How many threads compute: the processor time of each, as Linux counts it."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import lcmulti
from lcmulti import plugins
from lcmulti.choosing.settings import current
from lcmulti.conformance.certify.check_large import LARGE
from lcmulti.conformance.certify.subject import AUTO, CORE_DTYPE, Subject
from lcmulti.conformance.inputs import draw
from lcmulti.plugins.contract import Resources

__all__ = ["can_count", "threads"]

ENOUGH = 0.3
"""Seconds of processor time that are looked at."""
TASKS = Path("/proc/self/task")


def can_count() -> bool:
    """Whether the processor time of each thread can be read."""
    return (TASKS / str(threading.get_native_id()) / "schedstat").exists()


def threads(backend: str, *implementations: str) -> dict[str, float]:
    """With ``threads=1``, the part of all processor time that the busiest thread had."""
    if plugins.registry().backends[backend].package == "jax":
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:1]))  # it asks nothing else
    found = {}
    for subject in (Subject(backend, each) for each in implementations):
        served = [c for c in LARGE.values() if subject.refusal(c, CORE_DTYPE) is None]
        if served:
            found[subject.implementation] = _share_of_the_busiest(subject, served[0])
    return found


def _share_of_the_busiest(subject: Subject, case: Any) -> float:
    there = draw(case, CORE_DTYPE).each(subject.array)
    arrays = tuple(each for each in there[:3] if each is not None)

    def step() -> None:
        results = [subject.call(case)(*arrays)]
        if "reverse" in subject.entry.capabilities:
            results += subject.owner.vjp(subject.call(case), arrays, there.dy)[1]
        elif subject.implementation != AUTO:
            rest = case.spec, Resources(current().max_workspace, current().threads)
            results.append(subject.map("input_grad")(there.dy, there.kernel, *rest))
            results.append(subject.map("kernel_grad")(there.x, there.dy, *rest))
        for each in results:
            subject.owner.to_numpy(each)

    with lcmulti.config(threads=1):
        step()  # compiles, and starts what is started once
        before, start = _times(), time.process_time()
        while time.process_time() - start < ENOUGH:
            step()
        total = time.process_time() - start
        after = _times()
    return max(after[each] - before.get(each, 0.0) for each in after) / total


def _times() -> dict[str, float]:
    """Seconds of processor time of each thread that is alive."""
    return {
        each.name: int((each / "schedstat").read_text(encoding="ascii").split()[0]) / 1e9
        for each in TASKS.iterdir()
    }
