"""What this machine can do at best: bytes it copies and sums of products it makes, a second."""

from __future__ import annotations

import contextlib
import os
import platform
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lcmulti import plugins
from lcmulti.bench.report import Machine
from lcmulti.bench.timing import least
from lcmulti.dtypes import DTYPES

__all__ = ["available_memory", "bandwidth", "cores", "measure", "processor", "rate"]


def cores() -> int:
    """Processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def bandwidth(threads: int, elements: int = 1 << 25) -> float:
    """Bytes per second of the faster of reading and copying memory far beyond the caches."""
    source = [np.ones(elements, "float32") for _ in range(threads)]
    target = [np.ones_like(each) for each in source]

    def together(work: Callable[[int], Any]) -> None:
        workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    size = sum(each.nbytes for each in source)
    reading = size / least(lambda: together(lambda i: source[i].max()))
    copying = 2 * size / least(lambda: together(lambda i: np.copyto(target[i], source[i])))
    return max(reading, copying)


def rate(dtype: str, backends: Iterable[str] = (), n: int = 2048) -> float:
    """Flops per second of a large matrix product, the best of NumPy's and the backends'.

    In the type that sums of *dtype* are held in.
    """
    a = np.ones((n, n), DTYPES[dtype].accumulator)
    out = np.empty_like(a)
    best = least(lambda: np.matmul(a, a, out=out))
    if "torch" in backends:  # its matrix library may be quicker than NumPy's
        import torch

        b = torch.from_numpy(a)
        best = min(best, least(lambda: torch.matmul(b, b)))
    return 2 * n**3 / best


def measure(dtype: str, backends: Iterable[str]) -> Machine:
    """Measure and describe this machine; a few seconds."""
    backends = list(backends)
    found = plugins.registry().backends
    versions = {name: plugins.framework_version(found[name]) or "unknown" for name in backends}
    return Machine(
        bandwidth=bandwidth(cores()),
        rate=rate(dtype, backends),
        cores=cores(),
        processor=processor(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        versions=versions,
    )


def processor() -> str:
    """Name of the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def available_memory() -> int:
    """Bytes that may still be taken, or 4 GiB where the system does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    return 4 * 2**30
