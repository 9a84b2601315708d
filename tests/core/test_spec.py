"""LocalConvSpec: normalisation, counts, blocks, identity."""

import dataclasses
import pickle
import subprocess
import sys
from math import prod

import numpy as np
import pytest
from hypothesis import given
from strategies import specs

import lcmulti
from lcmulti.algorithms import reference
from lcmulti.errors import ArgumentError, ArgumentTypeError, ShapeError
from lcmulti.geometry.of_call import spec_of_call
from lcmulti.geometry.spec import LocalConvSpec

LAST = {"data_format": "channels_last"}
SPEC = LocalConvSpec((9, 8, 4), 6, (3, 2), **LAST)

DOCUMENTED = [
    # The examples of Keras' documentation, with the parameter counts that Keras prints.
    ((10, 32), dict(filters=64, kernel_size=3), (8, 64), 8 * 3 * 32 * 64 + 8 * 64),
    ((8, 64), dict(filters=32, kernel_size=3), (6, 32), 6 * 3 * 64 * 32 + 6 * 32),
    ((32, 32, 3), dict(filters=64, kernel_size=(3, 3)), (30, 30, 64), 1_612_800),
    ((30, 30, 64), dict(filters=32, kernel_size=3), (28, 28, 32), 784 * (576 * 32 + 32)),
]


@pytest.mark.parametrize("input_shape, arguments, output_shape, parameters", DOCUMENTED)
def test_documented_examples(input_shape, arguments, output_shape, parameters):
    spec = LocalConvSpec(input_shape, **arguments)
    assert spec.output_shape == output_shape
    assert spec.num_parameters == parameters


def test_every_derived_quantity_of_one_geometry():
    spec = LocalConvSpec(
        (6, 11, 8),
        filters=4,
        kernel_size=(3, 2),
        strides=[2, 1],
        padding=((1, 0), (0, 2)),
        dilation=(2, 3),
        groups=2,
        data_format="channels_first",
        shared_axes=[1],
    )
    assert (spec.in_channels, spec.input_size, spec.input_shape) == (6, (11, 8), (6, 11, 8))
    assert (spec.output_size, spec.output_shape) == ((4, 7), (4, 4, 7))
    assert spec.positions_shape == (4, 1)
    assert spec.kernel_shape == (4, 1, 3, 2, 3, 4)
    assert spec.bias_shape == (4, 1, 4)
    assert spec.terms == 18
    assert spec.num_parameters == 4 * 18 * 4 + 16
    assert spec.flops(5) == 2 * 5 * 28 * 4 * 18
    assert spec.bytes(5, "float16") == 2 * (5 * (528 + 112) + spec.num_parameters)
    assert not spec.is_convolution
    assert not spec.is_disjoint


def test_arithmetic_beyond_2_to_the_31():
    spec = LocalConvSpec((100_000, 100_000, 64), filters=128, kernel_size=9)
    assert prod(spec.output_size) == 99_992**2
    assert spec.num_parameters == 99_992**2 * (81 * 64 * 128 + 128)
    assert spec.flops(32) == 2 * 32 * 99_992**2 * 128 * 81 * 64
    moved = 100_000**2 * 64 + 99_992**2 * 128 + spec.num_parameters
    assert spec.bytes(1, "complex128") == 16 * moved
    # Sizes from NumPy become Python's ints, too, without a limit of 32 or 64 bits.
    sizes = np.array([100_000, 100_000, 64], np.int32)
    small = LocalConvSpec(tuple(sizes), filters=np.int8(127), kernel_size=np.int8(9))
    assert small.num_parameters == 99_992**2 * 127 * (81 * 64 + 1)


@given(specs())
def test_block_sees_what_the_whole_sees(spec):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *spec.input_shape))
    kernel = rng.normal(size=spec.kernel_shape)
    whole = reference.forward(x, kernel, spec)
    padded = np.pad(x, ((0, 0), *spec.padding, (0, 0)))
    start = tuple(n // 3 for n in spec.output_size)
    stop = tuple(a + max((n - a) // 2, 1) for a, n in zip(start, spec.output_size, strict=True))
    block, window = spec.block(start, stop)
    region = tuple(map(slice, start, stop))
    shared = spec.positions_shape
    part = tuple(slice(None) if n == 1 else r for n, r in zip(shared, region, strict=True))
    assert block.input_size == padded[:, *window, :].shape[1:-1]
    y = reference.forward(padded[:, *window, :], kernel[part], block)
    np.testing.assert_allclose(y, whole[:, *region, :], rtol=1e-12, atol=1e-12)


@given(specs())
def test_equal_geometries_are_one_key(spec):
    again = LocalConvSpec(
        list(spec.input_shape),
        spec.filters,
        list(spec.kernel_size),
        strides=list(spec.strides),
        padding=[list(pair) for pair in spec.padding],
        dilation=list(spec.dilation),
        groups=spec.groups,
        shared_axes=list(spec.shared_axes),
        data_format="CHANNELS_LAST",
    )
    assert again == spec
    assert hash(again) == hash(spec)
    unpickled = pickle.loads(pickle.dumps(spec))
    assert unpickled == spec
    assert hash(unpickled) == hash(spec)


def test_hash_of_a_pickle_is_right_in_another_process():
    spec = LocalConvSpec((9, 8, 2), 3, 2)
    hash(spec)  # fills the cache before the spec is pickled
    code = (
        "import pickle, sys; from lcmulti import LocalConvSpec\n"
        "spec = pickle.loads(sys.stdin.buffer.read())\n"
        "assert spec in {LocalConvSpec((9, 8, 2), 3, 2)}"
    )
    subprocess.run([sys.executable, "-c", code], input=pickle.dumps(spec), check=True)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_spec_may_be_replaced(data_format):
    rest = dict(
        input_shape=(8, 6, 4), kernel_size=2, padding="same", groups=2, data_format=data_format
    )
    spec = LocalConvSpec(filters=6, shared_axes=(1,), **rest)
    wider = dataclasses.replace(spec, filters=8)
    assert wider == LocalConvSpec(filters=8, shared_axes=(1,), **rest)
    assert dataclasses.replace(spec) == spec
    assert dataclasses.replace(spec, input_shape=spec.input_shape, strides=2).output_size != (
        spec.output_size
    )
    with pytest.raises(ArgumentError, match="groups"):
        dataclasses.replace(spec, groups=4)


@pytest.mark.parametrize("start, stop, wrong", [((0,), (2, 2), "start"), ((0, 0), (1,), "stop")])
def test_corners_of_a_block_have_an_entry_per_axis(start, stop, wrong):
    spec = LocalConvSpec((9, 8, 4), 6, 2, data_format="channels_last")
    with pytest.raises(ArgumentError, match=f"^{wrong}: expected 2 positions"):
        spec.block(start, stop)


def test_frozen():
    spec = LocalConvSpec((9, 2), 3, 2)
    with pytest.raises(AttributeError):
        spec.filters = 4


def test_computed_is_channels_last_and_padded_with_zeros_alone():
    spec = LocalConvSpec((2, 9), 3, 2, padding=1, data_format="channels_first")
    assert spec.computed().input_shape == (9, 2)
    assert spec.computed().padding == ((1, 1),)
    reflected = LocalConvSpec((9, 2), 3, 2, padding=1, padding_mode="reflect")
    assert reflected.computed().input_size == (11,)
    assert reflected.computed().padding == ((0, 0),)
    assert reflected.computed().output_size == reflected.output_size
    # Without padding the mode has no effect, so there is one spelling of the geometry.
    assert LocalConvSpec((9, 2), 3, 2, padding_mode="reflect") == LocalConvSpec((9, 2), 3, 2)


def test_is_convolution_and_is_disjoint():
    assert LocalConvSpec((9, 9, 2), 3, 2, shared_axes=(0, 1)).is_convolution
    assert LocalConvSpec((3, 3, 2), 3, 3).is_convolution  # one position
    assert not LocalConvSpec((9, 9, 2), 3, 2, shared_axes=(0,)).is_convolution
    assert LocalConvSpec((9, 9, 2), 3, (2, 1), strides=(2, 1)).is_disjoint
    assert LocalConvSpec((9, 2), 3, 1, dilation=5).is_disjoint
    assert not LocalConvSpec((9, 2), 3, 2, strides=2, padding=1).is_disjoint
    assert not LocalConvSpec((9, 2), 3, 2, strides=2, dilation=2).is_disjoint
    assert not LocalConvSpec((9, 2), 3, 2, strides=3).is_disjoint


def test_an_axis_of_one_position_has_nothing_to_share():
    assert LocalConvSpec((3, 9, 2), 3, 3, shared_axes=(0,)).shared_axes == ()


def test_data_format_none_is_the_configured_one():
    with lcmulti.config(data_format="channels_first"):
        assert LocalConvSpec((2, 9), 3, 2).in_channels == 2


GOOD = dict(input_shape=(9, 8, 4), filters=6, kernel_size=3)


@pytest.mark.parametrize(
    "changes, error, words",
    [
        (dict(input_shape=(9,)), ShapeError, "input_shape: expected (*size, channels)"),
        (dict(input_shape=(9, 0, 4)), ArgumentError, "input_shape: expected a positive integer"),
        (dict(input_shape=9), ArgumentTypeError, "input_shape: expected a tuple of integers"),
        (dict(input_shape="98"), ArgumentTypeError, "input_shape: expected a tuple of integers"),
        (dict(input_shape=()), ArgumentError, "input_shape: expected at least one integer"),
        (dict(filters=0), ArgumentError, "filters: expected a positive integer, got 0"),
        (dict(filters=2.0), ArgumentTypeError, "filters: expected a positive integer, got 2.0"),
        (dict(filters=True), ArgumentTypeError, "filters: expected a positive integer, got True"),
        (dict(kernel_size=(3,)), ArgumentError, "kernel_size: expected an integer or 2 of them"),
        (dict(kernel_size=-1), ArgumentError, "kernel_size: expected a positive integer, got -1"),
        (dict(kernel_size=10), ShapeError, "no larger than the padded input (9, 8), got (10, 10)"),
        (dict(dilation=4), ShapeError, "which spans (9, 9)"),
        (dict(strides=0), ArgumentError, "strides: expected a positive integer, got 0"),
        (dict(dilation=(1, 0)), ArgumentError, "dilation: expected a positive integer, got 0"),
        (dict(groups=3), ArgumentError, "groups: expected a divisor of in_channels=4, got 3"),
        (dict(groups=4), ArgumentError, "groups: expected a divisor of filters=6, got 4"),
        (dict(data_format="NHWC"), ArgumentError, "data_format: expected one of 'channels_last'"),
        (dict(padding_mode=0), ArgumentTypeError, "padding_mode: expected one of 'zeros'"),
        (dict(shared_axes=(2,)), ArgumentError, "shared_axes: expected distinct spatial axes"),
        (dict(shared_axes=(0, 0)), ArgumentError, "got (0, 0)"),
        (dict(shared_axes=0), ArgumentTypeError, "shared_axes: expected distinct spatial axes"),
    ],
)
def test_wrong_arguments(changes, error, words):
    with pytest.raises(error) as caught:
        LocalConvSpec(**(GOOD | changes))
    assert type(caught.value) is error
    assert words in str(caught.value)


def test_wrong_dtype_of_bytes():
    with pytest.raises(ArgumentError, match="dtype: expected one of 'float16'.*got 'float31'"):
        LocalConvSpec(**GOOD).bytes(1, "float31")


def test_arguments_say_the_geometry_again():
    spec = LocalConvSpec(
        (2, 9, 8), 4, (3, 2), strides=(2, 1), padding=((1, 0), (0, 2)), padding_mode="reflect",
        dilation=2, groups=2, data_format="channels_first",
    )  # fmt: skip
    assert LocalConvSpec(spec.input_shape, 4, (3, 2), **spec.arguments()) == spec


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_indices_of_padding(mode):
    padded = LocalConvSpec((3, 4, 1), 1, 1, padding=((0, 0), (2, 1)), padding_mode=mode, **LAST)
    ((axis, indices),) = padded.padding_indices()
    numpys = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    assert axis == 2
    assert indices.tolist() == np.pad(np.arange(4), (2, 1), mode=numpys).tolist()
    low = LocalConvSpec((3, 4, 1), 1, 1, padding=((2, 0), (0, 1)), padding_mode=mode, **LAST)
    assert [axis for axis, _ in low.padding_indices()] == [1, 2]
    assert SPEC.padding_indices() == ()


def test_counts():
    assert (SPEC.flops(0), SPEC.flops(2)) == (0, 2 * 2 * 49 * 6 * 24)
    assert SPEC.bytes(0) == SPEC.num_parameters * 4
    assert SPEC.bytes(1, "float64") == 8 * (SPEC.num_parameters + 9 * 8 * 4 + 49 * 6)
    assert SPEC.sharing((1,)).shared_axes == (1,)


def test_strides_and_dilation_of_what_is_computed():
    wide = LocalConvSpec((3, 4, 1), 1, 1, strides=(50, 2), dilation=(70, 1), **LAST).computed()
    assert (wide.strides, wide.dilation) == ((3, 2), (3, 1))


def test_weights_of_one_position_are_no_shared_ones():
    found = spec_of_call((2, 3, 8, 4), (2, 7, 2, 2, 4, 6), None, **LAST)
    assert found.shared_axes == ()
    assert spec_of_call((2, 3, 8, 4), (1, 7, 2, 2, 4, 6), None, **LAST).shared_axes == (0,)
