"""Measurements that need a process of their own: peak memory, forking after use, imports.

Run as ``python -m lcmulti.conformance.certify.probe WHAT ARGUMENTS``; prints one line of JSON.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import lcmulti
from lcmulti.algorithms import reference
from lcmulti.choosing.settings import DEFAULTS
from lcmulti.conformance.bounds import compare, dot_bound, terms
from lcmulti.conformance.calls import Inputs
from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.geometries import STATISTICS
from lcmulti.conformance.inputs import draw
from lcmulti.dtypes import DTYPES
from lcmulti.errors import UnsupportedError
from lcmulti.geometry.fields import replace_fields
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Resources

if TYPE_CHECKING:
    from lcmulti.conformance.certify.subject import Subject

__all__ = [
    "GROWTH",
    "LARGE",
    "can_fork",
    "can_measure",
    "growth_of",
    "memory_of",
    "reset_peak",
    "run",
    "status",
]

Array = np.ndarray[Any, Any]
ROUNDOFF = DTYPES["float32"].roundoff + DTYPES["float64"].roundoff

MEBIBYTE = 2**20
MAX_WORKSPACE = 32 * MEBIBYTE
SLACK = 64 * MEBIBYTE
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
GIVING_BACK = {
    "MALLOC_MMAP_THRESHOLD_": str(2**18),  # mallopt(3): what is larger is unmapped when freed
    "TF_ENABLE_ONEDNN_OPTS": "0",  # with oneDNN, TensorFlow keeps what was freed for itself
}
"""Environment in which memory that is freed is no longer resident, so that none is used twice."""
WATCHED = "PYTEST_CURRENT_TEST"
"""Set by pytest, by which code can tell that it is tested: a fresh process is as users' are."""
CLEAR = Path("/proc/self/clear_refs")


def can_measure() -> bool:
    """Whether the peak of this process' memory can be set back and read."""
    return CLEAR.exists()


def can_fork() -> bool:
    """Whether this is POSIX."""
    return hasattr(os, "fork")


def run(what: str, *arguments: str) -> Any:
    """Measure in a fresh process.

    Raises
    ------
    RuntimeError
        If the process fails, with the end of what it said.
    """
    command = [sys.executable, "-m", "lcmulti.conformance.certify.probe", what, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT, check=False,
        env={k: v for k, v in os.environ.items() if k != WATCHED} | GIVING_BACK,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"{what} ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


@cache
def growth_of(backend: str, implementations: tuple[str, ...]) -> dict[str, int]:
    """Bytes that stay after many calls of each implementation, all in one fresh process."""
    found: dict[str, int] = run("growth", backend, *implementations)
    return found


@cache
def memory_of(backend: str, implementations: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Peak memory of ``"implementation case"``, all measured in one fresh process."""
    found: dict[str, dict[str, Any]] = run("memory", backend, *implementations)
    return found


def reset_peak() -> int:
    """Give back what is free, forget the peak, and return the bytes held now."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    CLEAR.write_text("5")  # proc(5): "reset the peak resident set size"
    return status("VmRSS")


def status(name: str) -> int:
    """A size of memory that ``/proc/self/status`` tells, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(dict(line.split(":", 1) for line in lines)[name].split()[0]) * 1024


def memory(backend: str, *implementations: str) -> dict[str, dict[str, Any]]:
    """Growth of the peak over the calls and the maps, for each and every case that is served."""
    from lcmulti.conformance.certify.subject import Subject

    found = {}
    for subject in (Subject(backend, each) for each in implementations):
        for name, case in LARGE.items():
            if subject.refusal(case, "float32") is None:
                key = f"{subject.implementation} {name}"
                try:
                    found[key] = _memory(subject, case, SMALL[name])
                except UnsupportedError as error:  # the honest answer of who needs more
                    found[key] = {"refused": str(error)}
                except Exception as error:
                    found[key] = {"error": f"{type(error).__name__}: {error}"}
    return found


def _memory(subject: Subject, case: Case, small: str) -> dict[str, Any]:
    from lcmulti.conformance.certify.subject import AUTO

    with lcmulti.config(max_workspace=MAX_WORKSPACE):
        _compute(subject, STATISTICS[small])  # starts pools of threads, compilers
        expected = _expected(case.name)
        there = draw(case, "float32").each(subject.array)
        before = reset_peak()
        largest, picked = _compute(subject, case, there)
        held = status("VmHWM") - before
        workspace = MAX_WORKSPACE
        if subject.implementation != AUTO:
            workspace = subject.maps.workspace(subject.problem(case, "float32"))
    parts = {"results": largest, "workspace": workspace, "slack": SLACK}
    worst = {name: compare(got, *expected[name])._asdict() for name, got in picked.items()}
    return {"held": held, "allowed": sum(parts.values()), "parts": parts, "deviations": worst}


SMALL = {
    "overlapping": "2d-long",
    "convolution": "2d-long_convolution",
    "tiled": "2d-long_tiled",
}


def _compute(
    subject: Subject, case: Case, there: Inputs | None = None
) -> tuple[int, dict[str, Array]]:
    """Compute and drop every result; return the bytes of the most at once, and a few elements."""
    from lcmulti.conformance.certify.subject import AUTO

    picked: dict[str, Array] = {}

    def size(name: str, array: Any) -> int:
        host = subject.owner.to_numpy(array)
        picked[name] = host[PICKED[name]]
        return host.nbytes

    if there is None:
        there = draw(case, "float32").each(subject.array)
    pair = there.x, there.kernel
    largest = size("forward", subject.call(case)(*pair))
    if "reverse" in subject.entry.capabilities:
        value, gradients = subject.owner.vjp(subject.call(case), pair, there.dy)
        largest = sum(map(size, PICKED, (value, *gradients)))
    elif subject.implementation != AUTO:
        maps, rest = subject.maps, (case.spec, Resources(MAX_WORKSPACE))
        dx = maps.input_grad(there.dy, there.kernel, *rest)
        largest = max(largest, size("input_grad", dx))
        del dx
        largest = max(largest, size("kernel_grad", maps.kernel_grad(there.x, there.dy, *rest)))
    return 2 * largest, picked  # `to_numpy` may copy


ENDS = [0, -1]
PICKED: dict[str, Any] = {
    "forward": ENDS,
    "input_grad": ENDS,
    "kernel_grad": (..., ENDS, slice(None)),
}
"""What is compared of results too large to be expected whole: two samples, two channels."""


@cache
def _expected(name: str) -> dict[str, tuple[Array, Array]]:
    """What is picked of each map of a large case, and its bound."""
    case = LARGE[name]
    x, kernel, _, dy = draw(case, "float32").each(lambda array: array.astype(np.float64))
    of_two = replace_fields(case.spec, in_channels=len(ENDS))
    rows: dict[str, tuple[Callable[..., Array], Array, Array, LocalConvSpec]] = {
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
        Case("growing", "large", (64, 64, 16), 4, (3, 3), 8, (), None, {"strides": 2}),
        Case("growing convolution", "large", (64, 64, 16), 4, (3, 3), 8, (0, 1), None),
        Case("growing tiled", "large", (63, 63, 16), 4, (3, 3), 8, (), None, {"strides": 3}),
    )
}
CALLS = 50
GROWTH = 32 * MEBIBYTE
"""What may stay of so many calls: copies of their inputs would be three times as much."""


def growth(backend: str, *implementations: str) -> dict[str, int]:
    """Bytes that stay after many calls, each with new values, for the first case served."""
    from lcmulti.conformance.certify.subject import Subject

    found = {}
    for subject in (Subject(backend, each) for each in implementations):
        served = (c for c in GROWING.values() if subject.refusal(c, "float32") is None)
        if (case := next(served, None)) is not None:
            _repeat(subject, case, CALLS // 5)
            before = reset_peak()
            _repeat(subject, case, CALLS)
            found[subject.implementation] = reset_peak() - before
    return found


def _repeat(subject: Subject, case: Case, count: int) -> None:
    inputs = draw(case, "float32")
    for _ in range(count):
        inputs = inputs.each(lambda array: -array * np.float32(1.01))
        there = inputs.each(subject.array)
        subject.call(case)(there.x, there.kernel)
        if "reverse" in subject.entry.capabilities:
            subject.owner.vjp(subject.call(case), (there.x, there.kernel), there.dy)


def fork(backend: str, implementation: str, name: str) -> dict[str, Any]:
    """Compute, fork, and compute the same in the child."""
    import multiprocessing

    from lcmulti.conformance.certify.subject import Subject

    subject, case = Subject(backend, implementation), STATISTICS[name]
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
    return {"same": queue.get(), "came": "computed other bits"}


def lazy(package: str) -> bool:
    """Whether reading the records, and nothing more, imports *package*."""
    from lcmulti import plugins

    before = package in sys.modules  # the core's own needs
    plugins.registry()
    return not before and package in sys.modules


if __name__ == "__main__":
    what, *given = sys.argv[1:]
    measure: dict[str, Callable[..., Any]] = {
        "memory": memory, "growth": growth, "fork": fork, "lazy": lazy,
    }  # fmt: skip
    with lcmulti.config(**DEFAULTS._asdict()):  # whatever settings files say
        print(json.dumps(measure[what](*given)))
