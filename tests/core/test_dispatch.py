"""Dispatch chooses the framework and the implementation. Most of both are fakes here."""

import sys
from types import ModuleType

import numpy as np
import pytest
from strangers import backend_entry, implementation_entry, plugin_of

import lcmulti
from lcmulti.choosing import dispatch
from lcmulti.errors import (
    ArgumentError,
    ArgumentTypeError,
    MixedFrameworksError,
    UnsupportedError,
)
from lcmulti.numpy.backend import NumpyBackend, Reference
from lcmulti.operations import calling

X, KERNEL = np.ones((2, 9, 3), "float32"), np.ones((8, 2, 3, 4), "float32")


class Array:
    """Arrays of the framework "red"."""

    def __init__(self, data):
        self.data = data

    def __add__(self, other):
        return type(self)(self.data + other.data)


class Other:
    """Arrays of the framework "blue"."""

    def __init__(self, data):
        self.data = data


class Paint(NumpyBackend):
    def __init__(self, kind):
        self.kind = kind

    def facts(self, array, *more):
        return super().facts(array.data, *more)

    def from_numpy(self, array, like=None):
        return self.kind(array)

    def to_numpy(self, array):
        return array.data

    def close(self, implementation, entry, name="forward"):
        forward = super().close(implementation, entry, name)
        return lambda x, kernel, *rest: self.kind(forward(x.data, kernel.data, *rest))


class Picky(Reference):
    def decline(self, problem):
        return "strides above 1" if max(problem.spec.strides) > 1 else None


class Greedy(Reference):
    def workspace(self, problem):
        return 1000


@pytest.fixture
def frameworks(install, monkeypatch):
    """Backends "red" and "blue" beside NumPy's, with implementations that can be distinguished."""
    module = ModuleType("paint")
    module.Array, module.Other = Array, Other
    module.red, module.blue = Paint(Array), Paint(Other)
    module.picky, module.greedy, module.plain = Picky(), Greedy(), Reference()
    monkeypatch.setitem(sys.modules, "paint", module)

    def entry(name, load, priority, **more):
        return implementation_entry(name, "red", load=f"paint:{load}", priority=priority, **more)

    red = backend_entry("red", load="paint:red", array_types=("paint:Array",))
    blue = backend_entry("blue", load="paint:blue", array_types=("absent:Array", "paint:Other"))
    install(
        paint=plugin_of(
            [red, blue],
            [
                entry("picky", "picky", 50),
                entry("doubles", "plain", 40, dtypes=("float64",)),
                entry("device", "plain", 35, devices=("gpu",)),
                entry("greedy", "greedy", 30),
                entry("plain", "plain", 10, transformable=True),
                implementation_entry("only", "blue", load="paint:plain"),
            ],
        )
    )
    return module


def chosen(*arrays, **arguments):
    found = lcmulti.explain(*arrays, **arguments)
    return found.backend, found.implementation


def test_arrays_decide(frameworks):
    y = lcmulti.local_conv(Array(X), Array(KERNEL))
    assert type(y) is Array
    found = lcmulti.explain(Array(X), Array(KERNEL))
    assert (found.backend, found.backend_reason) == ("red", "the framework of the arrays")


def test_numpy_is_neutral(frameworks):
    for arrays in ((Array(X), KERNEL), (X, Array(KERNEL))):
        assert type(lcmulti.local_conv(*arrays)) is Array
    bias = Array(np.zeros((8, 4), "float32"))
    assert type(lcmulti.local_conv(X, KERNEL, bias)) is Array
    y = lcmulti.local_conv(X, KERNEL, backend="red")
    assert type(y) is np.ndarray
    assert (y == 6).all()


def test_numpy_arrays_go_where_the_call_then_the_settings_say(frameworks):
    assert chosen(X, KERNEL) == ("numpy", "blocked")
    with lcmulti.config(backend="blue"):
        found = lcmulti.explain(X, KERNEL)
        assert found.backend == "blue"
        assert found.backend_reason == "configured: lcmulti.config(...)"
        found = lcmulti.explain(X, KERNEL, backend="RED")
        assert (found.backend, found.backend_reason) == ("red", "named in the call")
        assert lcmulti.explain(Array(X), KERNEL).backend == "red"


def test_frameworks_never_mix(frameworks):
    red, blue = Array(X), Other(KERNEL)
    with pytest.raises(MixedFrameworksError) as error:
        lcmulti.local_conv(red, blue)
    assert str(error.value) == (
        "kernel: expected an array of red, as x is, got one of blue; convert one of them"
    )
    bias = Other(np.zeros((8, 4), "float32"))
    with pytest.raises(MixedFrameworksError, match="^bias: expected an array of red, as kernel"):
        lcmulti.local_conv(X, Array(KERNEL), bias)
    with pytest.raises(MixedFrameworksError, match="^backend: expected 'red'.*got 'blue'"):
        lcmulti.local_conv(red, KERNEL, backend="blue")
    with pytest.raises(MixedFrameworksError, match="^backend: expected 'red'.*got 'numpy'"):
        lcmulti.local_conv(red, KERNEL, backend="numpy")


def test_a_framework_that_is_not_imported_is_not_looked_for(frameworks):
    assert "absent" not in sys.modules
    with pytest.raises(
        ArgumentTypeError, match=r"^x: expected an array of one of .*builtins\.list"
    ):
        lcmulti.local_conv([[1.0]], KERNEL)
    assert "absent" not in sys.modules


RED = Array(X), Array(KERNEL)
STRIDED = Array(X), Array(KERNEL[:4])


def test_auto_takes_the_highest_priority_that_can_serve(frameworks):
    assert chosen(*RED) == ("red", "picky")
    assert chosen(*STRIDED, strides=2) == ("red", "greedy")
    wide = (Array(each.data.astype("float64")) for each in STRIDED)
    assert chosen(*wide, strides=2) == ("red", "doubles")


def test_max_workspace(frameworks):
    with lcmulti.config(max_workspace=1000):
        assert chosen(*STRIDED, strides=2) == ("red", "greedy")
    with lcmulti.config(max_workspace=999):
        found = lcmulti.explain(*STRIDED, strides=2, backend="red")
        verdict = next(each for each in found.verdicts if each.name == "greedy")
        assert verdict.reason == "needs 1,000 bytes of workspace, over max_workspace=999"
        # A caller who names an implementation accepts its memory, too.
        assert chosen(*STRIDED, strides=2, implementation="greedy") == ("red", "greedy")


def test_nothing_fits_in_no_workspace(frameworks):
    with lcmulti.config(max_workspace=0), pytest.raises(UnsupportedError) as error:
        lcmulti.local_conv(*STRIDED, strides=2)
    for word in ("'red'", "picky: strides above 1", "greedy: needs 1,000 bytes", "plain: needs"):
        assert word in str(error.value)


def test_a_name_forces_or_raises(frameworks):
    assert chosen(*RED, implementation="PLAIN") == ("red", "plain")
    for name, reason in (
        ("picky", "strides above 1"),
        ("doubles", "does not compute in float32"),
        ("device", "does not run on cpu"),
    ):
        with pytest.raises(UnsupportedError) as error:
            lcmulti.local_conv(*STRIDED, strides=2, implementation=name)
        assert f"{name!r} of backend 'red' cannot serve this call ({reason})" in str(error.value)
        assert "implementation='auto' takes one that can" in str(error.value)


def test_an_unknown_name_lists_the_choices(frameworks):
    with pytest.raises(ArgumentError) as error:
        lcmulti.local_conv(*RED, implementation="fastest")
    assert "implementation: expected one of 'auto', 'picky', 'doubles'" in str(error.value)
    with pytest.raises(ArgumentError, match="backend: expected one of .*'red', .*got 'green'"):
        lcmulti.local_conv(*RED, backend="green")


def test_a_configured_implementation_is_a_wish(frameworks):
    with lcmulti.config(implementation="plain"):
        found = lcmulti.explain(*RED)
        assert found.implementation == "plain"
        assert found.implementation_reason == "configured: lcmulti.config(...)"
        assert chosen(X, KERNEL) == ("numpy", "blocked")  # NumPy's backend has no "plain"
    with lcmulti.config(implementation="picky"):
        assert chosen(*STRIDED, strides=2) == ("red", "greedy")


def test_transformed_calls_go_to_what_can_be_transformed(frameworks, monkeypatch):
    facts = frameworks.red.facts
    monkeypatch.setattr(
        frameworks.red, "facts", lambda *each: facts(*each)._replace(transformed=True)
    )
    assert chosen(*RED) == ("red", "plain")
    with lcmulti.config(max_workspace=0):  # "plain" has a low priority, but only it can serve
        assert chosen(*RED) == ("red", "plain")
    with pytest.raises(UnsupportedError, match="cannot be transformed"):
        lcmulti.local_conv(*RED, implementation="picky")


def test_plans_are_cached_by_value_and_type():
    """1, 1.0 and True are equal as keys, but only the first is a valid stride."""
    lcmulti.local_conv(X, KERNEL, strides=1)
    for wrong in (1.0, True, np.float32(1)):
        with pytest.raises(ArgumentTypeError, match="^strides"):
            lcmulti.local_conv(X, KERNEL, strides=wrong)
    before = dispatch._plan.cache_info().misses
    for _ in range(5):
        lcmulti.local_conv(X, KERNEL, strides=1)
    assert dispatch._plan.cache_info().misses == before


def test_a_change_of_settings_is_seen_by_the_next_call():
    x = np.ones((2, 3, 9), "float32")
    with lcmulti.config(data_format="channels_first"):
        assert lcmulti.local_conv(x, KERNEL).shape == (2, 4, 8)
    with pytest.raises(lcmulti.errors.ShapeError):
        lcmulti.local_conv(x, KERNEL)


def test_the_configured_backend_is_read_at_every_call():
    pytest.importorskip("torch")
    arrays = np.ones((2, 5, 3)), np.ones((4, 2, 3, 7))
    took = []
    for name in ("numpy", "torch", "numpy"):
        with lcmulti.config(backend=name):
            took.append(calling.call_key("local_conv", (np.ndarray,) * 3, None))
            assert lcmulti.local_conv(*arrays).shape == (2, 4, 7)
    assert took == [f"local_conv in {name} from NumPy" for name in ("numpy", "torch", "numpy")]
