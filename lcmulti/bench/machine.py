"""The peak speeds of this machine: memory bandwidth, and rate of matrix products."""

from __future__ import annotations

import contextlib
import platform
import threading
from collections.abc import Callable, Iterable
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from lcmulti import plugins
from lcmulti.bench.contenders import Contender
from lcmulti.bench.harness import harness
from lcmulti.bench.report import Machine
from lcmulti.bench.timing import least
from lcmulti.conformance.inputs import numpy_dtype
from lcmulti.dtypes import DTYPES
from lcmulti.processors import cores

__all__ = ["available_memory", "bandwidth", "gpu", "measure", "processor", "rate"]


CGROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (
        Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)  # fmt: skip
"""Where the memory of a container is told, in both versions of Linux' control groups: the limit,
what is held, and how much of that are files in the cache, which give way."""


def bandwidth(threads: int, elements: int = 1 << 25) -> float:
    """Bytes per second of reading or of copying, whichever is faster, far beyond the caches."""
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
    """Flops per second of a large matrix product: the best of NumPy and the backends.

    In the accumulator dtype of *dtype*.
    """
    a = np.ones((n, n), DTYPES[dtype].accumulator)
    out = np.empty_like(a)
    best = least(lambda: np.matmul(a, a, out=out))
    if "torch" in backends:  # its matrix library may be faster than NumPy's
        import torch

        b = torch.from_numpy(a)
        best = min(best, least(lambda: torch.matmul(b, b)))
    return 2 * n**3 / best


def gpu(dtype: str, backends: Iterable[str]) -> tuple[float, float, str]:
    """Bandwidth and rate of the GPU (the best that a backend reaches), and its name."""
    elements, n = 1 << 26, 4096
    big, one = np.ones(elements, "float32"), np.ones(1, "float32")
    square = np.ones((n, n), numpy_dtype(dtype))
    moving, multiplying, names = inf, inf, []
    for backend in backends:
        runner = harness(backend, "gpu")
        scaled = Contender(lambda x, factor: x * factor, big, one, big)
        moving = min(moving, least(runner.step(scaled, False)))
        product = Contender(runner.product, square, square, square)
        multiplying = min(multiplying, least(runner.step(product, False)))
        names += [each for each in runner.owner.devices() if not each.lower().startswith("cpu")]
    return 2 * big.nbytes / moving, 2 * n**3 / multiplying, next(iter(names), "a GPU")


def measure(dtype: str, backends: Iterable[str], device: str = "cpu") -> Machine:
    """Measure and describe this machine; it takes a few seconds."""
    backends = list(backends)
    found = plugins.registry().backends
    versions = {name: plugins.framework_version(found[name]) or "unknown" for name in backends}
    if device == "gpu":
        moved, multiplied, name = gpu(dtype, backends)
    else:
        moved, multiplied, name = bandwidth(cores()), rate(dtype, backends), processor()
    return Machine(
        bandwidth=moved,
        rate=multiplied,
        cores=cores(),
        processor=name,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        versions=versions,
        device=device,
    )


def processor() -> str:
    """Name of the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def available_memory() -> int:
    """Bytes of free memory, or 4 GiB where the system does not tell.

    In a container these are at most the bytes that its limit leaves.
    """
    free = 4 * 2**30
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable"):
                free = int(line.split()[1]) * 1024
    for folder, limit, used, cached in CGROUPS:
        # Without a limit there is no such file, or it has the word "max".
        with contextlib.suppress(OSError, ValueError, KeyError):
            most, held = (int((folder / name).read_text("ascii")) for name in (limit, used))
            rows = (folder / "memory.stat").read_text("ascii").splitlines()
            files = int(dict(row.split() for row in rows)[cached])
            free = min(free, max(most - held + files, 0))
    return free
