"""Measure what fresh memory costs: the system must clear each page of a new result.

An allocator that keeps freed memory reuses its pages instead. Allocators read their settings when a
process starts, so each is timed in a process of its own:

    python -m lcmulti.bench.fresh < request

The request is a pickle that the parent process has made with this module.
"""

from __future__ import annotations

import ctypes.util
import os
import pickle
import platform
import subprocess
import sys
from math import prod
from statistics import median

from lcmulti.bench.contenders import ours
from lcmulti.bench.harness import harness
from lcmulti.bench.timing import calls_for, timed
from lcmulti.bench.workloads import Arrays, Workload
from lcmulti.dtypes import DTYPES

__all__ = ["AS_IT_IS", "allocators", "line", "measured", "results_of"]

AS_IT_IS = "as it is"
LARGE = 2**22
"""Bytes of results from which on they are in fresh memory; glibc keeps smaller blocks."""

CALLS = 7
GIBIBYTES = str(2**32)
GLIBC = {
    "MALLOC_MMAP_THRESHOLD_": GIBIBYTES,  # mallopt(3): freed blocks below it stay mapped
    "MALLOC_TRIM_THRESHOLD_": GIBIBYTES,
    "MALLOC_TOP_PAD_": str(2**26),
}
LIBRARIES = ("tcmalloc_minimal", "jemalloc")


def allocators() -> dict[str, dict[str, str]]:
    """By name of an allocator, the environment variables with which it keeps freed memory.

    Empty without glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return {}
    found = {"glibc": GLIBC}
    for name in LIBRARIES:
        if (path := ctypes.util.find_library(name)) is not None:
            found[name] = {"LD_PRELOAD": path}
    return found


def line(allocator: str) -> str:
    """The variables of an allocator as they are written before a command."""
    return " ".join(f"{name}={value}" for name, value in allocators()[allocator].items())


def results_of(workload: Workload, dtype: str, training: bool) -> int:
    """Bytes of the results of one call."""
    spec, batch = workload.spec, workload.batch
    numbers = batch * prod(spec.output_shape)
    if training:
        numbers += batch * prod(spec.input_shape) + prod(spec.kernel_shape)
    return numbers * DTYPES[dtype].itemsize


def measured(
    workload: Workload, backend: str, dtype: str, training: bool, limit: float
) -> dict[str, float]:
    """Seconds of a call with ``auto``, by allocator, and with the process' own settings.

    Parameters
    ----------
    workload : Workload
    backend : str
    dtype : str
    training : bool
    limit : float
        Seconds after which a process is given up.

    Returns
    -------
    dict
        Empty where results are small or no allocator can be told.
    """
    known = allocators()
    if not known or results_of(workload, dtype, training) < LARGE:
        return {}
    request = pickle.dumps((workload, backend, dtype, training))
    found = {}
    told: dict[str, dict[str, str]] = {AS_IT_IS: {}, **known}
    for name, variables in told.items():
        path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        try:
            done = subprocess.run(
                [sys.executable, "-m", "lcmulti.bench.fresh"], input=request, timeout=limit,
                capture_output=True, check=True, env=os.environ | path | variables,
            )  # fmt: skip
        except subprocess.SubprocessError:
            continue
        found[name] = float(done.stdout.split()[-1])
    return found if AS_IT_IS in found and len(found) > 1 else {}


def main() -> int:
    """Time a call after two others, which build, compile, and leave freed memory behind."""
    workload, backend, dtype, training = pickle.load(sys.stdin.buffer)
    arrays = Arrays(workload, dtype)
    contender = ours(arrays, backend, "auto", workload.spec.data_format)
    step = harness(backend).step(contender, training)
    step()
    calls = calls_for(timed(step))
    print(median(timed(step, calls) for _ in range(CALLS)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
