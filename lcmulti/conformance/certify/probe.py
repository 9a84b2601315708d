"""Measurements that need another process: peak memory, forking after use, imports.

Measurements that take seconds are made while other checks run. Run as
``python -m lcmulti.conformance.certify.probe WHAT ARGUMENTS``. It prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import lcmulti
from lcmulti.choosing.settings import DEFAULTS
from lcmulti.conformance.certify.geometries import STATISTICS
from lcmulti.conformance.certify.memory_held import CLEAR, reset_peak, status
from lcmulti.conformance.inputs import draw

__all__ = ["Probes", "can_fork", "can_measure", "reset_peak", "run", "status"]

TIMEOUT = 900
GIVING_BACK = {
    # `mallopt(3)`: larger blocks are unmapped when they are freed.
    "MALLOC_MMAP_THRESHOLD_": str(2**18),
    # With oneDNN, TensorFlow does not return freed memory to the system.
    "TF_ENABLE_ONEDNN_OPTS": "0",
    # Tests ask for code that compiles quickly. It would run for minutes here.
    "XLA_FLAGS": "",
}
"""Environment in which freed memory is returned to the system, so that the peak shows all of it."""
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS"), "1"
)  # fmt: skip
"""Environment in which frameworks use one thread, so that other threads are an implementation's."""
ENVIRONMENT = {"memory": GIVING_BACK, "growth": GIVING_BACK, "threads": ONE_THREAD}
WATCHED = "PYTEST_CURRENT_TEST"
"""Variables of pytest that are removed, so that code in the new process cannot detect a test."""


def can_measure() -> bool:
    """Whether the peak of this process' memory can be reset and read."""
    return CLEAR.exists()


def can_fork() -> bool:
    """Whether this is POSIX."""
    return hasattr(os, "fork")


def run(what: str, *arguments: str) -> Any:
    """Measure in a new process.

    Raises
    ------
    RuntimeError
        If the process fails, with the end of its output.
    """
    with _started(what, *arguments) as process:
        return _read(what, process)


def _started(what: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lcmulti.conformance.certify.probe", what, *arguments]
    env = {k: v for k, v in os.environ.items() if k != WATCHED} | ENVIRONMENT.get(what, {})
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env)


def _read(what: str, process: subprocess.Popen[str]) -> Any:
    try:
        out, said = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    if process.returncode != 0:
        raise RuntimeError(f"{what} ended with {process.returncode}: {said[-2000:]}")
    return json.loads(out.splitlines()[-1])


class Probes:
    """Measurements of all implementations of a backend, each in a new process, one at a time.

    Parameters
    ----------
    backend : str
    implementations : tuple of str
    """

    def __init__(self, backend: str, implementations: tuple[str, ...]) -> None:
        self.arguments = backend, *implementations
        self.pool, self.begun = ThreadPoolExecutor(1), dict[str, Future[Any]]()
        self.process: subprocess.Popen[str] | None = None

    def begin(self, what: str) -> Future[Any]:
        """Start a measurement in the background, if it was not started before."""
        if what not in self.begun:
            self.begun[what] = self.pool.submit(self._run, what)
        return self.begun[what]

    def measured(self, what: str) -> Any:
        """The result of a measurement; waits for it."""
        return self.begin(what).result()

    def stop(self) -> None:
        """Start no further measurement, and end the one that runs."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        if self.process is not None:
            self.process.kill()

    def _run(self, what: str) -> Any:
        with _started(what, *self.arguments) as self.process:
            return _read(what, self.process)


def fork(backend: str, implementation: str, name: str) -> dict[str, Any]:
    """Compute, fork, and compute the same call in the child."""
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
    """Whether reading the records imports *package*."""
    from lcmulti import plugins

    before = package in sys.modules  # packages that the core needs
    plugins.registry()
    return not before and package in sys.modules


if __name__ == "__main__":
    from lcmulti.conformance.certify import probe_memory, probe_threads

    what, *given = sys.argv[1:]
    measure: dict[str, Callable[..., Any]] = {
        "memory": probe_memory.memory, "growth": probe_memory.growth,
        "threads": probe_threads.threads, "fork": fork, "lazy": lazy,
    }  # fmt: skip
    with lcmulti.config(**DEFAULTS._asdict()):  # independent of settings files
        print(json.dumps(measure[what](*given)))
