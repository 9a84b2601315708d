"""Wrong calls: one clear error naming the argument and what came, the same on every backend."""

import copy
import pickle
from itertools import permutations

import numpy as np
import pytest
from conftest import INSTALLED

import lcmulti
from lcmulti import errors, plugins
from lcmulti.errors import (
    ArgumentError,
    ArgumentTypeError,
    DtypeError,
    MixedFrameworksError,
    ShapeError,
    UnsupportedError,
)


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


# A call that is right; each row of the table spoils it in one way.
RIGHT = dict(x=ones(2, 9, 8, 4), kernel=ones(7, 7, 3, 2, 4, 6), bias=ones(7, 7, 6))

WRONG = [
    # changes, class, argument named, what the message shows of what came
    (dict(x=ones(9, 8, 4)), ShapeError, "x", "(9, 8, 4)"),
    (dict(x=ones(2, 1, 9, 8, 4)), ShapeError, "x", "(2, 1, 9, 8, 4)"),
    (dict(x=ones()), ShapeError, "x", "()"),
    (dict(x=ones(2, 0, 8, 4)), ShapeError, "x", "(2, 0, 8, 4)"),
    (dict(x=ones(2, 9, 8, 0)), ShapeError, "x", "(2, 9, 8, 0)"),
    (dict(x=ones(2, 9, 8, 3)), ShapeError, "kernel", "4 in shape (7, 7, 3, 2, 4, 6)"),
    (dict(x=ones(2, 2, 8, 4)), ShapeError, "kernel_size", "(3, 2)"),
    (dict(x=ones(2, 12, 8, 4)), ShapeError, "kernel", "(7, 7)"),
    (dict(x=ones(2, 4, 9, 8)), ShapeError, "kernel", "(7, 7)"),
    (dict(x=[[1.0]]), ArgumentTypeError, "x", "list"),
    (dict(x=None), ArgumentTypeError, "x", "NoneType"),
    (dict(x="image.png"), ArgumentTypeError, "x", "str"),
    (dict(x=3.0), ArgumentTypeError, "x", "float"),
    (dict(x=ones(2, 9, 8, 4, dtype="int32")), DtypeError, "x", "int32"),
    (dict(x=ones(2, 9, 8, 4, dtype="uint8")), DtypeError, "x", "uint8"),
    (dict(x=ones(2, 9, 8, 4, dtype="bool")), DtypeError, "x", "bool"),
    (dict(x=ones(2, 9, 8, 4, dtype="float16")), DtypeError, "kernel", "float32"),
    (dict(kernel=ones(7, 7, 3, 2, 4, 6, dtype="int32")), DtypeError, "kernel", "int32"),
    (dict(kernel=ones(7, 7, 3, 2, 4, 6, dtype="complex64")), DtypeError, "kernel", "complex64"),
    (dict(kernel=ones(7, 7, 3, 2, 4)), ShapeError, "kernel", "(7, 7, 3, 2, 4)"),
    (dict(kernel=ones(4, 6)), ShapeError, "kernel", "(4, 6)"),
    (dict(kernel=ones(7, 3, 4, 6)), ShapeError, "x", "(2, 9, 8, 4)"),
    (dict(kernel=ones(7, 7, 3, 2, 5, 6)), ShapeError, "kernel", "5 in shape (7, 7, 3, 2, 5, 6)"),
    (dict(kernel=ones(7, 6, 3, 2, 4, 6)), ShapeError, "kernel", "(7, 6)"),
    (dict(kernel=ones(2, 7, 3, 2, 4, 6)), ShapeError, "kernel", "(2, 7)"),
    (dict(kernel=ones(7, 7, 0, 2, 4, 6)), ShapeError, "kernel", "(7, 7, 0, 2, 4, 6)"),
    (dict(kernel=ones(7, 7, 3, 2, 4, 0)), ShapeError, "kernel", "(7, 7, 3, 2, 4, 0)"),
    (dict(kernel=ones(1, 1, 10, 2, 4, 6)), ShapeError, "kernel_size", "(10, 2)"),
    (dict(kernel={"w": 1}), ArgumentTypeError, "kernel", "dict"),
    (dict(bias=ones(6)), ShapeError, "bias", "(6,)"),
    (dict(bias=ones(7, 7, 5)), ShapeError, "bias", "(7, 7, 5)"),
    (dict(bias=ones(7, 3, 6)), ShapeError, "bias", "(7, 3)"),
    (dict(bias=ones(1, 7, 7, 6)), ShapeError, "bias", "(1, 7, 7, 6)"),
    (dict(bias=ones(7, 7, 6, dtype="float16")), DtypeError, "bias", "float16"),
    (dict(bias=0.5), ArgumentTypeError, "bias", "float"),
    (dict(strides=0), ArgumentError, "strides", "0"),
    (dict(strides=-2), ArgumentError, "strides", "-2"),
    (dict(strides=(1, 1, 1)), ArgumentError, "strides", "(1, 1, 1)"),
    (dict(strides=()), ArgumentError, "strides", "()"),
    (dict(strides=1.0), ArgumentTypeError, "strides", "1.0"),
    (dict(strides=True), ArgumentTypeError, "strides", "True"),
    (dict(strides="2"), ArgumentTypeError, "strides", "'2'"),
    (dict(strides=(1, None)), ArgumentTypeError, "strides", "None"),
    (dict(strides=2), ShapeError, "kernel", "(7, 7)"),
    (dict(dilation=0), ArgumentError, "dilation", "0"),
    (dict(dilation=(1, -1)), ArgumentError, "dilation", "-1"),
    (dict(dilation={2}), ArgumentTypeError, "dilation", "{2}"),
    (dict(dilation=5), ShapeError, "kernel_size", "which spans (11, 6)"),
    (dict(padding="vallid"), ArgumentError, "padding", "'vallid'"),
    (dict(padding="causal"), ArgumentError, "padding", "'causal'"),
    (dict(padding=-1), ArgumentError, "padding", "-1"),
    (dict(padding=((1, 1),)), ArgumentError, "padding", "((1, 1),)"),
    (dict(padding=((1, 1, 1), (1, 1))), ArgumentError, "padding", "((1, 1, 1), (1, 1))"),
    (dict(padding=0.5), ArgumentTypeError, "padding", "0.5"),
    (dict(padding=None), ArgumentTypeError, "padding", "None"),
    (dict(padding=1), ShapeError, "kernel", "(7, 7)"),
    (dict(padding_mode="mirror"), ArgumentError, "padding_mode", "'mirror'"),
    (dict(padding_mode=None), ArgumentTypeError, "padding_mode", "None"),
    (dict(padding=9, padding_mode="reflect"), ShapeError, "padding", "(9, 9)"),
    (dict(padding=10, padding_mode="circular"), ShapeError, "padding", "(10, 10)"),
    (dict(groups=0), ArgumentError, "groups", "0"),
    (dict(groups=3), ArgumentError, "groups", "3"),
    (dict(groups=4), ArgumentError, "groups", "4"),
    (dict(groups=2), ShapeError, "kernel", "4 in shape"),
    (dict(groups=2.0), ArgumentTypeError, "groups", "2.0"),
    (dict(data_format="NHWC"), ArgumentError, "data_format", "'NHWC'"),
    (dict(data_format=1), ArgumentTypeError, "data_format", "1"),
    (dict(data_format="channels_first"), ShapeError, "kernel", "(7, 7)"),
    (dict(backend="theano"), ArgumentError, "backend", "'theano'"),
    (dict(backend=np), ArgumentTypeError, "backend", "module"),
    (dict(implementation="fastest"), ArgumentError, "implementation", "'fastest'"),
    (dict(implementation=None), ArgumentTypeError, "implementation", "None"),
    (dict(implementation=("auto",)), ArgumentTypeError, "implementation", "('auto',)"),
]  # fmt: skip


def identify(row):
    return ",".join(
        f"{k}={v.dtype}{v.shape}" if isinstance(v, np.ndarray) else f"{k}={v!r:.30}"
        for k, v in row[0].items()
    )


def convert(arguments, backend):
    owner = plugins.load_backend(backend)
    return {
        name: owner.from_numpy(value) if isinstance(value, np.ndarray) else value
        for name, value in arguments.items()
    }


def test_the_right_call_is_right(backend):
    y = lcmulti.local_conv(**convert(RIGHT, backend))
    assert type(y) is type(convert(RIGHT, backend)["x"])
    assert (plugins.load_backend(backend).to_numpy(y) == 25).all()


@pytest.mark.parametrize("changes, error, argument, shown", WRONG, ids=map(identify, WRONG))
def test_wrong_calls(backend, changes, error, argument, shown):
    with pytest.raises(errors.LcmultiError) as caught:
        lcmulti.local_conv(**convert(RIGHT | changes, backend))
    assert type(caught.value) is error
    assert caught.value.argument == argument
    message = str(caught.value)
    assert message.startswith(f"{argument}: expected ")
    assert shown in message.split(", got ", 1)[1]


FRAMEWORK_PAIRS = list(permutations((name for name in INSTALLED if name != "numpy"), 2))


def test_the_table_is_long_enough_and_each_row_is_wrong_in_its_own_way():
    assert len(WRONG) >= 40
    assert len(set(map(identify, WRONG))) == len(WRONG)


@pytest.mark.parametrize("first, second", FRAMEWORK_PAIRS)
def test_two_frameworks_in_one_call(first, second):
    mixed = convert(RIGHT, first) | convert(dict(kernel=RIGHT["kernel"]), second)
    with pytest.raises(MixedFrameworksError) as caught:
        lcmulti.local_conv(**mixed)
    assert caught.value.argument == "kernel"
    assert f"an array of {first}, as x is, got one of {second}" in str(caught.value)
    with pytest.raises(
        MixedFrameworksError, match=f"^backend: expected '{first}'.* got '{second}'"
    ):
        lcmulti.local_conv(**convert(RIGHT, first), backend=second)


def test_an_implementation_that_cannot_serve(backend):
    with lcmulti.config(max_workspace=0), pytest.raises(UnsupportedError) as caught:
        lcmulti.local_conv(**convert(RIGHT, backend))
    assert f"no implementation of backend '{backend}'" in str(caught.value)
    assert "over max_workspace=0" in str(caught.value)


def test_errors_are_the_built_ins_a_caller_expects():
    expected = {
        "ArgumentError": ValueError,
        "ArgumentTypeError": TypeError,
        "ConfigError": ValueError,
        "DtypeError": TypeError,
        "MissingBackendError": ImportError,
        "MissingExtraError": ImportError,
        "MixedFrameworksError": TypeError,
        "PluginError": Exception,
        "ShapeError": ValueError,
        "TooLargeError": MemoryError,
        "UnsupportedError": NotImplementedError,
    }
    assert set(errors.__all__) == expected.keys() | {"LcmultiError"}
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
