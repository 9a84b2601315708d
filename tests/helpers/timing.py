"""The least time a call takes, on machines that do other things as well."""

import time


def seconds_a_call(function, calls):
    start = time.thread_time()  # not what other processes take
    for _ in range(calls):
        function()
    return (time.thread_time() - start) / calls


def least_seconds_a_call(function, limit):
    """The least of many short runs, and more of them for 20 seconds while it is over *limit*.

    What else the machine does only ever adds.
    """
    least, end = limit + 1, time.monotonic() + 20
    while least > limit and time.monotonic() < end:
        least = min(least, *(seconds_a_call(function, 50) for _ in range(100)))
    return least
