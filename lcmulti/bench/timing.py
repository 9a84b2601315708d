"""How things are timed: after a warm-up, in turns, each call by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

__all__ = ["Step", "calls_for", "least", "timed"]

Step = Callable[[], Any]
"""Computes once and returns when it is done."""


SHORTEST = 0.005
"""Seconds a measurement takes at least: a clock and a processor that wakes up cost some."""


def timed(step: Step, calls: int = 1) -> float:
    """Seconds of one call, the mean of so many."""
    start = time.perf_counter()
    for _ in range(calls):
        step()
    return (time.perf_counter() - start) / calls


def calls_for(seconds: float) -> int:
    """Calls of so many seconds that make a measurement long enough."""
    return max(1, round(SHORTEST / max(seconds, 1e-7)))


def least(step: Step, seconds: float = 0.4, calls: int = 3) -> float:
    """Least seconds of one call, after a warm-up: whatever else the machine does only adds."""
    step()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < calls or (time.perf_counter() < end and len(times) < 200):
        times.append(timed(step))
    return min(times)
