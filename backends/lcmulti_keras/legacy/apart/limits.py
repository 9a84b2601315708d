"""Limits of a process that reads a stranger's file. Imports nothing but the standard library."""

from __future__ import annotations

import math
from pathlib import Path

__all__ = ["set_limits"]


def set_limits(memory: int, seconds: int, written: int = 0) -> None:
    """Let this process take so much more memory and computing, and write files of so many bytes.

    Where the system knows no such limits, the process that waits for this one still has its own.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limits = {
        "RLIMIT_CPU": math.ceil(usage.ru_utime + usage.ru_stime) + seconds,
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": written,
    }
    pages = Path("/proc/self/statm")
    if pages.exists():
        limits["RLIMIT_AS"] = int(pages.read_text().split()[0]) * resource.getpagesize() + memory
    for name, value in limits.items():
        _, hard = resource.getrlimit(getattr(resource, name))
        if hard in (resource.RLIM_INFINITY, -1) or value < hard:
            resource.setrlimit(getattr(resource, name), (value, hard))
