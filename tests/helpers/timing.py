"""The least time of a call, on machines that do other work, too."""

import time


def seconds_a_call(function, calls):
    start = time.thread_time()  # without the time of other processes
    for _ in range(calls):
        function()
    return (time.thread_time() - start) / calls


def least_seconds_a_call(function, limit):
    """The least time of many short runs; while it is over *limit*, more runs for 20 seconds.

    What else the machine does only ever adds.
    """
    least, end = limit + 1, time.monotonic() + 20
    while least > limit and time.monotonic() < end:
        least = min(least, *(seconds_a_call(function, 50) for _ in range(100)))
    return least
