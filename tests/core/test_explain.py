"""`explain` says what a call would do, and raises what the call would raise."""

import numpy as np
import pytest

import lcmulti
from lcmulti.errors import (
    ArgumentError,
)

X, KERNEL = np.ones((2, 9, 3), "float32"), np.ones((8, 2, 3, 4), "float32")


def test_explain_of_a_spec_is_explain_of_the_call():
    spec = lcmulti.LocalConvSpec((9, 3), 4, 2)
    assert lcmulti.explain(spec, batch=2) == lcmulti.explain(X, KERNEL)


def test_explain_reads_well(install):
    install()  # whatever other plugins are installed
    spec = lcmulti.LocalConvSpec((32, 32, 3), filters=64, kernel_size=3)
    lines = str(lcmulti.explain(spec, batch=32, backend="numpy")).splitlines()
    assert lines[0] == "backend         numpy (named in the call)"
    assert lines[1] == "implementation  blocked (highest priority of the 2 that can serve)"
    assert lines[3:5] == [
        "output          (30, 30, 64)",
        "kernel          (30, 30, 3, 3, 3, 64)",
    ]
    assert lines[5] == "not reference   could serve; lower priority"


def test_explain_computes_nothing(install):
    install()  # whatever other plugins are installed
    spec = lcmulti.LocalConvSpec((100_000, 100_000, 3), filters=64, kernel_size=3)
    assert lcmulti.explain(spec, batch=32, backend="numpy").implementation == "blocked"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(batch=-1), "batch: expected an integer of at least 0, got -1"),
        (dict(dtype="int8"), "dtype: expected one of"),
        (dict(device="abacus"), "device: expected one of 'cpu', 'gpu', got 'abacus'"),
        (dict(backend="green"), "backend: expected one of"),
        (dict(implementation="fastest"), "implementation: expected one of"),
    ],
)
def test_wrong_explain(arguments, message):
    spec = lcmulti.LocalConvSpec((9, 3), 4, 2)
    with pytest.raises(ArgumentError) as error:
        lcmulti.explain(spec, **arguments)
    assert str(error.value).startswith(message)


def test_explain_raises_what_the_call_would():
    with pytest.raises(ArgumentError, match="^kernel: expected an array beside x"):
        lcmulti.explain(X)
    for wrong in (KERNEL[:, :, :2], KERNEL[:3]):
        with pytest.raises(lcmulti.errors.ShapeError) as call:
            lcmulti.local_conv(X, wrong)
        with pytest.raises(lcmulti.errors.ShapeError) as explained:
            lcmulti.explain(X, wrong)
        assert str(call.value) == str(explained.value)
