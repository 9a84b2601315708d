"""Measure the least time of a call, on machines that do other work, too."""

import time


def seconds_a_call(function, calls):
    start = time.thread_time()  # without the time of other processes
    for _ in range(calls):
        function()
    return (time.thread_time() - start) / calls


def least_seconds_a_call(function, limit):
    """Return the least seconds of a call, over many short runs.

    Runs are repeated while the least is over *limit*, for at most 20 seconds, because other work
    of the machine can only add time.
    """
    least, end = limit + 1, time.monotonic() + 20
    while least > limit and time.monotonic() < end:
        least = min(least, *(seconds_a_call(function, 50) for _ in range(100)))
    return least
