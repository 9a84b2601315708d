"""Measurements that need a process of their own: peak memory, and forking after use.

Run as ``python -m lcmulti.conformance.certify.probe WHAT BACKEND IMPLEMENTATION CASE``; prints
one line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lcmulti
from lcmulti.backend import Resources
from lcmulti.conformance.calls import Inputs
from lcmulti.conformance.cases import Case
from lcmulti.conformance.certify.geometries import STATISTICS
from lcmulti.conformance.inputs import draw

if TYPE_CHECKING:
    from lcmulti.conformance.certify.subject import Subject

__all__ = ["LARGE", "can_fork", "run", "unable_to_measure"]

MEBIBYTE = 2**20
MAX_WORKSPACE = 32 * MEBIBYTE
SLACK = 96 * MEBIBYTE
"""What a framework may hold beside the arrays: its compiler, its allocator's rounding."""

LARGE = {
    case.name: case
    for case in (
        # Patches of all positions would take 290 MiB, nine times the workspace allowed.
        Case("overlapping", "large", (110, 110, 16), 2, (5, 5), 16, (), None),
        Case("convolution", "large", (110, 110, 16), 2, (5, 5), 16, (0, 1), None),
        Case("tiled", "large", (550, 550, 4), 2, (5, 5), 16, (), None, {"strides": 5}),
    )
}
TIMEOUT = 300


def unable_to_measure() -> str | None:
    """Why peak memory cannot be measured here, or None if it can."""
    try:
        import resource  # noqa: F401
    except ImportError:
        return "peak memory is measured where there is getrusage"
    return None


def can_fork() -> bool:
    """Whether this is POSIX."""
    return hasattr(os, "fork")


def run(what: str, subject: Subject, case: str) -> dict[str, Any]:
    """Measure in a fresh process.

    Raises
    ------
    RuntimeError
        If the process fails, with the end of what it said.
    """
    names = [subject.backend, subject.implementation, case]
    command = [sys.executable, "-m", "lcmulti.conformance.certify.probe", what, *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{what} ended with {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _peak() -> int:
    # On Linux getrusage starts from the peak of the process that started this one; the
    # kernel's own mark of this program's memory does not.
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory(subject: Subject, name: str) -> dict[str, Any]:
    """Growth of the peak over the three maps, or for ``auto`` over the calls it serves."""
    from lcmulti.conformance.certify.subject import AUTO

    case = LARGE[name]
    with lcmulti.config(max_workspace=MAX_WORKSPACE):
        _compute(subject, STATISTICS[f"2d-{_SMALL[name]}"])  # starts pools of threads, compilers
        there = draw(case, "float32").each(subject.array)
        before = _peak()
        largest = _compute(subject, case, there)
        held = _peak() - before
        workspace = MAX_WORKSPACE
        if subject.implementation != AUTO:
            workspace = subject.maps.workspace(subject.problem(case, "float32"))
    parts = {"results": largest, "workspace": workspace, "slack": SLACK}
    return {"held": held, "allowed": sum(parts.values()), "parts": parts}


_SMALL = {"overlapping": "long", "convolution": "long_convolution", "tiled": "long_tiled"}


def _compute(subject: Subject, case: Case, there: Inputs | None = None) -> int:
    """Compute and drop every result; return the bytes of the most that exist at once."""
    from lcmulti.conformance.certify.subject import AUTO

    back = subject.owner.to_numpy
    if there is None:
        there = draw(case, "float32").each(subject.array)
    pair = there.x, there.kernel
    largest = back(subject.call(case)(*pair)).nbytes
    if subject.implementation != AUTO:
        maps, rest = subject.maps, (case.spec, Resources(MAX_WORKSPACE))
        largest = max(largest, back(maps.forward(*pair, *rest)).nbytes)
        largest = max(largest, back(maps.input_grad(there.dy, there.kernel, *rest)).nbytes)
        largest = max(largest, back(maps.kernel_grad(there.x, there.dy, *rest)).nbytes)
    elif "reverse" in subject.entry.capabilities:
        value, gradients = subject.owner.vjp(subject.call(case), pair, there.dy)
        largest = sum(back(each).nbytes for each in (value, *gradients))
    return 2 * largest  # `to_numpy` may copy


def fork(subject: Subject, name: str) -> dict[str, Any]:
    """Compute, fork, and compute the same in the child."""
    import multiprocessing

    case = STATISTICS[name]
    there = draw(case, "float32").each(subject.array)

    def bits() -> bytes:
        y = subject.call(case)(there.x, there.kernel)
        return subject.owner.to_numpy(y).tobytes()

    expected = bits()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=lambda: queue.put(bits() == expected))
    child.start()
    child.join(60)
    if child.is_alive():
        child.kill()
        return {"same": False, "came": "was still computing after 60 s"}
    if child.exitcode != 0:
        return {"same": False, "came": f"ended with {child.exitcode}"}
    same = queue.get()
    return {"same": same, "came": "computed other bits"}


if __name__ == "__main__":
    from lcmulti.conformance.certify.subject import Subject as _Subject

    what, backend, implementation, case_name = sys.argv[1:]
    measure = {"memory": memory, "fork": fork}[what]
    print(json.dumps(measure(_Subject(backend, implementation), case_name)))
