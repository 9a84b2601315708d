"""What dispatch costs: `local_conv` against the backend's operation called directly."""

import time

import numpy as np
import pytest

import lcmulti
from lcmulti import dispatch, plugins

LIMIT = 30e-6


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


@pytest.mark.slow
def test_dispatch_costs_at_most_30_microseconds(backend, fresh, monkeypatch):
    """With an operation that does nothing: real ones vary by more than what is measured."""

    def nothing(x, kernel, spec, resources):
        return x

    monkeypatch.setattr(dispatch, "operation", lambda *names: nothing)
    owner = plugins.load_backend(backend)
    x, kernel = (owner.from_numpy(np.ones(s, "float32")) for s in ((1, 2, 1), (2, 1, 1, 1)))
    assert lcmulti.local_conv(x, kernel) is x

    def ours():
        lcmulti.local_conv(x, kernel)

    def directly():
        nothing(x, kernel, None, None)

    direct = least_seconds_a_call(directly, LIMIT)
    beyond = least_seconds_a_call(ours, LIMIT + direct) - direct
    assert beyond <= LIMIT, f"{beyond * 1e6:.1f} microseconds"


def test_a_warm_call_plans_nothing(fresh, monkeypatch):
    """The reason it is cheap, without a clock."""
    x, kernel = np.ones((1, 2, 1)), np.ones((2, 1, 1, 1))
    lcmulti.local_conv(x, kernel)
    for module, name in ((dispatch, "choose"), (dispatch, "spec_of_call"), (plugins, "_load")):
        monkeypatch.setattr(module, name, None)
    lcmulti.local_conv(x, kernel)
