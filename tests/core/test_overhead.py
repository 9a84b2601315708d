"""The cost of dispatch: `local_conv` compared with a direct call of the backend's operation."""

import numpy as np
import pytest
from timing import least_seconds_a_call

import lcmulti
from lcmulti import plugins
from lcmulti.choosing import dispatch
from lcmulti.plugins import collecting

LIMIT = 30e-6


@pytest.mark.slow
def test_dispatch_costs_at_most_30_microseconds(backend, fresh, monkeypatch):
    """The operation does nothing, because the times of real ones vary by more than the cost."""

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
    """A second call is cheap because it plans nothing, which needs no clock to test."""
    x, kernel = np.ones((1, 2, 1)), np.ones((2, 1, 1, 1))
    first = lcmulti.local_conv(x, kernel)
    for module, name in ((dispatch, "choose"), (dispatch, "spec_of_call"), (collecting, "_load")):
        monkeypatch.setattr(module, name, None)
    np.testing.assert_array_equal(lcmulti.local_conv(x, kernel), first)
