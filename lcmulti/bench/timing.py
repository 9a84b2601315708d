"""Time calls: one by itself, the mean of several, or the least of many after a warm-up."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

__all__ = ["Step", "calls_for", "least", "timed"]

Step = Callable[[], Any]
"""Computes once, and returns when the result is ready."""

SHORTEST = 0.005
"""Least seconds of a measurement, to outweigh the clock and the wake-up of the processor."""

MOST_CALLS = 200
"""Calls of `least` at most, so that short ones end before the time is up."""


def timed(step: Step, calls: int = 1) -> float:
    """Seconds of one call: the mean of several calls."""
    start = time.perf_counter()
    for _ in range(calls):
        step()
    return (time.perf_counter() - start) / calls


def calls_for(seconds: float) -> int:
    """Number of calls, each of so many seconds, that make a measurement long enough."""
    return max(1, round(SHORTEST / max(seconds, 1e-7)))


def least(step: Step, seconds: float = 0.4, calls: int = 3) -> float:
    """Smallest time of one call after a warm-up: other load on the machine only adds to it.

    It calls for *seconds*, but at least *calls* and at most `MOST_CALLS` times.
    """
    step()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < calls or (time.perf_counter() < end and len(times) < MOST_CALLS):
        times.append(timed(step))
    return min(times)
