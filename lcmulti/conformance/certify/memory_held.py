"""The memory that this process holds, as the system counts it."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress
from pathlib import Path

__all__ = ["CLEAR", "reset_peak", "status"]

CLEAR = Path("/proc/self/clear_refs")


def reset_peak() -> int:
    """Return free memory to the system, reset the peak, and return the bytes held now."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    CLEAR.write_text("5")  # proc(5): "reset the peak resident set size"
    return status("VmRSS")


def status(name: str) -> int:
    """A size of memory from ``/proc/self/status``, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(dict(line.split(":", 1) for line in lines)[name].split()[0]) * 1024
