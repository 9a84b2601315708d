"""Wrong calls: one clear error naming the argument and what came, the same on every backend."""

import copy
import pickle
from itertools import permutations

import pytest
from helpers_variables import OPERATIONS, drawn
from installed import INSTALLED

import lcmulti
from lcmulti import errors, plugins
from lcmulti.conformance.certify.wrong_calls import RIGHT, WRONG, converted, named
from lcmulti.errors import (
    ArgumentError,
    DtypeError,
    MixedFrameworksError,
    ShapeError,
    UnsupportedError,
)


def test_the_right_call_is_right(backend):
    y = lcmulti.local_conv(**converted(RIGHT, backend))
    assert type(y) is type(converted(RIGHT, backend)["x"])
    assert (plugins.load_backend(backend).to_numpy(y) == 25).all()


@pytest.mark.parametrize("changes, error, argument, shown", WRONG, ids=map(named, WRONG))
def test_wrong_calls(backend, changes, error, argument, shown):
    with pytest.raises(errors.LcmultiError) as caught:
        lcmulti.local_conv(**converted(RIGHT | changes, backend))
    assert type(caught.value) is error
    assert caught.value.argument == argument
    message = str(caught.value)
    assert message.startswith(f"{argument}: expected ")
    assert shown in message.split(", got ", 1)[1]


FRAMEWORK_PAIRS = list(permutations((name for name in INSTALLED if name != "numpy"), 2))


def test_the_table_is_long_enough_and_each_row_is_wrong_in_its_own_way():
    assert len(WRONG) >= 40
    assert len(set(map(named, WRONG))) == len(WRONG)


@pytest.mark.parametrize("first, second", FRAMEWORK_PAIRS)
def test_two_frameworks_in_one_call(first, second):
    mixed = converted(RIGHT, first) | converted(dict(kernel=RIGHT["kernel"]), second)
    with pytest.raises(MixedFrameworksError) as caught:
        lcmulti.local_conv(**mixed)
    assert caught.value.argument == "kernel"
    assert f"an array of {first}, as x is, got one of {second}" in str(caught.value)
    with pytest.raises(
        MixedFrameworksError, match=f"^backend: expected '{first}'.* got '{second}'"
    ):
        lcmulti.local_conv(**converted(RIGHT, first), backend=second)


def test_an_implementation_that_cannot_serve(backend):
    with lcmulti.config(max_workspace=0), pytest.raises(UnsupportedError) as caught:
        lcmulti.local_conv(**converted(RIGHT, backend))
    assert f"no implementation of backend '{backend}'" in str(caught.value)
    assert "over max_workspace=0" in str(caught.value)


def test_errors_are_the_built_ins_a_caller_expects():
    expected = {
        "ArgumentError": ValueError,
        "ArgumentTypeError": TypeError,
        "ConfigError": ValueError,
        "DtypeError": TypeError,
        "FileError": ValueError,
        "FreedMemoryError": RuntimeError,
        "MissingBackendError": ImportError,
        "MissingExtraError": ImportError,
        "MixedFrameworksError": TypeError,
        "PluginError": Exception,
        "ShapeError": ValueError,
        "TooLargeError": MemoryError,
        "UnsupportedError": NotImplementedError,
    }
    assert set(errors.__all__) == expected.keys() | {"LcmultiError", "Interrupted"}
    assert issubclass(errors.Interrupted, KeyboardInterrupt)  # the user's wish, not an error
    assert not issubclass(errors.Interrupted, Exception)
    for name, base in expected.items():
        assert issubclass(getattr(errors, name), (base, errors.LcmultiError))
        assert issubclass(getattr(errors, name), base)


@pytest.mark.parametrize("remake", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy])
def test_errors_travel_between_processes(remake):
    for error in (
        ShapeError("x", "rank 3", errors.described("shape (1, 2)")),
        ArgumentError("groups", "a divisor", 3),
    ):
        again = remake(error)
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert again.argument == error.argument


@pytest.mark.parametrize("wrong", ["float64", "int32"])
@pytest.mark.parametrize(
    ("name", "i"), [(name, i) for name, (names, _) in OPERATIONS.items() for i in range(len(names))]
)
def test_every_operation_names_the_array_of_another_dtype(name, i, wrong):
    names, run = OPERATIONS[name]
    arrays = drawn(names)
    arrays[i] = arrays[i].astype(wrong)
    if wrong == "float64" and len(names) == 1:
        run(*arrays)
        return
    # With another of the first array, the second does not have that of the first.
    argument = names[1] if (i, wrong) == (0, "float64") else names[i]
    with pytest.raises(DtypeError) as caught:
        run(*arrays)
    assert caught.value.argument == ("x" if argument == "y" else argument)
