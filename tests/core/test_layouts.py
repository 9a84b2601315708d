"""Each layout stores weights where the other library's documentation says, in memory order."""

from math import prod

import numpy as np
import pytest
from helpers_layouts import SPECS, indices, seen, spec_of

import lcmulti
from lcmulti import errors
from lcmulti.weights import layouts
from lcmulti.weights.layouts import LAYOUTS

# Where a library stores the weight of (o, k, c, f), by its documentation.
DEFINITIONS = {
    "lcmulti": lambda s, o, k, c, f: (*o, *k, c, f),
    "torch7": lambda s, o, k, c, f: (*o, f, c, *k),
    "pytorch-recipe": lambda s, o, k, c, f: (0, f, c, *o, k[0] * s.kernel_size[1] + k[1]),
    "chainer": lambda s, o, k, c, f: (f, *o, c, *k),
    "fbnn": lambda s, o, k, c, f: (f, *o, c, *k),
    "theano": lambda s, o, k, c, f: (f, *o, c, *flip(s, k)),
    "lasagne": lambda s, o, k, c, f: (f, c, *flip(s, k), *o),
    "lasagne-tied": lambda s, o, k, c, f: (f, c, *flip(s, k), *o),
    "dl4j": lambda s, o, k, c, f: (
        np.ravel_multi_index(o, s.output_size),
        np.ravel_multi_index((c, *k), (s.in_channels, *s.kernel_size)),
        f,
    ),
    "eir": lambda s, o, k, c, f: (f, o[0], k[0]),
    "darknet": lambda s, o, k, c, f: (np.ravel_multi_index(o, s.output_size), f, c, *k),
    "cuda-convnet": lambda s, o, k, c, f: (
        np.ravel_multi_index(o, s.output_size), c, np.ravel_multi_index(k, s.kernel_size), f
    ),
}  # fmt: skip


def flip(spec, k):
    return tuple(n - 1 - t for t, n in zip(k, spec.kernel_size, strict=True))


@pytest.mark.parametrize("layout", DEFINITIONS)
@pytest.mark.parametrize("axes", [1, 2])
def test_kernel_by_definition(layout, axes, rng):
    if LAYOUTS[layout].axes and axes not in LAYOUTS[layout].axes:
        with pytest.raises(errors.UnsupportedError, match=f"the spec is {axes}D"):
            layouts.kernel_shape(layout, spec_of(axes))
        return
    spec = spec_of(axes, channels=1 if layout == "eir" else 3)
    theirs = rng.standard_normal(layouts.kernel_shape(layout, spec))
    ours = layouts.import_kernel(theirs, layout, spec)
    assert ours.shape == spec.kernel_shape
    for o, k, c, f in indices(spec):
        assert ours[(*o, *k, c, f)] == theirs[DEFINITIONS[layout](spec, o, k, c, f)]
    np.testing.assert_array_equal(layouts.export_kernel(ours, layout, spec), theirs)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("padding", ["valid", "keras_same"])
@pytest.mark.parametrize("axes", [1, 2])
def test_keras2_masks_by_definition(axes, padding, data_format, rng):
    spec = spec_of(axes, data_format, padding)
    first = data_format == "channels_first"

    def entry(o, k, c, f):
        i, inside = seen(spec, o, k)
        source = (c, *i) if first else (*i, c)
        target = (f, *o) if first else (*o, f)
        return (source, target) if inside else None

    entries = [(entry(*index), index) for index in indices(spec)]
    dense = rng.standard_normal(layouts.kernel_shape("keras2-2", spec))
    ours = layouts.import_kernel(dense, "keras2-2", spec)
    for place, (o, k, c, f) in entries:
        assert ours[(*o, *k, c, f)] == (0 if place is None else dense[(*place[0], *place[1])])
    again = layouts.export_kernel(ours, "keras2-2", spec)
    np.testing.assert_array_equal(layouts.import_kernel(again, "keras2-2", spec), ours)
    assert np.count_nonzero(again) == sum(place is not None for place, _ in entries)

    # Implementation 3 lists the connected entries sorted by (output, input).
    connected = sorted((place[1], place[0], index) for place, index in entries if place)
    listed = rng.standard_normal(len(connected))
    assert layouts.kernel_shape("keras2-3", spec) == listed.shape
    ours = layouts.import_kernel(listed, "keras2-3", spec)
    for value, (_, _, (o, k, c, f)) in zip(listed, connected, strict=True):
        assert ours[(*o, *k, c, f)] == value
    np.testing.assert_array_equal(layouts.export_kernel(ours, "keras2-3", spec), listed)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("axes", [1, 2])
def test_keras2_implementation_1_by_definition(axes, data_format, rng):
    spec = spec_of(axes, data_format)
    theirs = rng.standard_normal(layouts.kernel_shape("keras2-1", spec))
    ours = layouts.import_kernel(theirs, "keras2-1", spec)
    for o, k, c, f in indices(spec):
        position = np.ravel_multi_index(o, spec.output_size)
        if data_format == "channels_last":
            row = np.ravel_multi_index((*k, c), (*spec.kernel_size, spec.in_channels))
        else:
            row = np.ravel_multi_index((c, *k), (spec.in_channels, *spec.kernel_size))
        assert ours[(*o, *k, c, f)] == theirs[position, row, f]
    np.testing.assert_array_equal(layouts.export_kernel(ours, "keras2-1", spec), theirs)


@pytest.mark.parametrize("layout", ["keras2-1", "keras2-2", "keras2-3"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_keras2_bias_is_reshaped_not_transposed(layout, data_format, rng):
    spec = spec_of(2, data_format)
    theirs = rng.standard_normal(layouts.bias_shape(layout, spec))
    assert theirs.shape == (*spec.output_size, spec.filters)
    ours = layouts.import_bias(theirs, layout, spec)
    added = theirs.reshape(spec.output_shape)  # the outputs of Keras 2 for one sample
    if data_format == "channels_first":
        added = np.moveaxis(added, 0, -1)
    np.testing.assert_array_equal(ours, added)
    np.testing.assert_array_equal(layouts.export_bias(ours, layout, spec), theirs)


BIASES = {
    "lcmulti": lambda s, o, f: (*o, f),
    "flax": lambda s, o, f: (*o, f),
    "torch7": lambda s, o, f: (f, *o),
    "pytorch-recipe": lambda s, o, f: (0, f, *o),
    "chainer": lambda s, o, f: (f, *o),
    "fbnn": lambda s, o, f: (f, *o),
    "lasagne": lambda s, o, f: (f, *o),
    "lasagne-tied": lambda s, o, f: (f,),
    "dl4j": lambda s, o, f: (0, f),
    "eir": lambda s, o, f: (f * s.output_size[0] + o[0],),
    "darknet": lambda s, o, f: (f, *o),
    "cuda-convnet": lambda s, o, f: (
        f * prod(s.output_size) + np.ravel_multi_index(o, s.output_size), 0
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", BIASES)
def test_bias_by_definition(layout, rng):
    spec = spec_of(1, channels=1) if layout == "eir" else spec_of(2)
    theirs = rng.standard_normal(layouts.bias_shape(layout, spec))
    ours = layouts.import_bias(theirs, layout, spec)
    assert ours.shape == spec.bias_shape
    for index in np.ndindex(*spec.bias_shape):
        assert ours[index] == theirs[BIASES[layout](spec, index[:-1], index[-1])]
    np.testing.assert_array_equal(layouts.export_bias(ours, layout, spec), theirs)


def test_every_row_is_tested():
    masked = {"keras2-1", "keras2-2", "keras2-3"}
    assert set(LAYOUTS) == DEFINITIONS.keys() | masked | {"flax"}
    assert set(LAYOUTS) == BIASES.keys() | masked | {"theano"}


@pytest.mark.parametrize("layout", ["lcmulti", "chainer", "fbnn", "theano", "cuda-convnet"])
def test_groups_where_the_library_can_have_them(layout, rng):
    spec = lcmulti.LocalConvSpec((5, 6, 4), 6, 2, groups=2, data_format="channels_last")
    theirs = rng.standard_normal(layouts.kernel_shape(layout, spec))
    ours = layouts.import_kernel(theirs, layout, spec)
    assert ours.shape == spec.kernel_shape
    np.testing.assert_array_equal(layouts.export_kernel(ours, layout, spec), theirs)


def test_a_shared_kernel_is_lcmultis_alone(rng):
    shared = SPECS[3].sharing((0, 1))
    kernel = rng.standard_normal(shared.kernel_shape)
    np.testing.assert_array_equal(layouts.import_kernel(kernel, "lcmulti", shared), kernel)
    with pytest.raises(errors.UnsupportedError, match="shares nothing"):
        layouts.export_kernel(kernel, "flax", shared)


def test_imports_are_copies(rng):
    for layout in ("lcmulti", "flax", "keras2-1"):
        theirs = rng.standard_normal(layouts.kernel_shape(layout, SPECS[2]))
        assert not np.shares_memory(layouts.import_kernel(theirs, layout, SPECS[2]), theirs)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_arrays_are_in_memory_order(layout, data_format, rng):
    spec = spec_of(1 if layout == "eir" else 2, data_format, channels=1 if layout == "eir" else 3)
    kernel = np.asfortranarray(rng.standard_normal(spec.kernel_shape))
    theirs = layouts.export_kernel(kernel, layout, spec)
    arrays = [theirs, layouts.import_kernel(np.asfortranarray(theirs), layout, spec)]
    if layout != "theano":
        bias = np.asfortranarray(np.broadcast_to(np.arange(4.0), spec.bias_shape))
        theirs = layouts.export_bias(bias, layout, spec)
        arrays += [theirs, layouts.import_bias(np.asfortranarray(theirs), layout, spec)]
    assert all(array.flags.c_contiguous and array.flags.owndata for array in map(owner, arrays))


def owner(array):
    """The array that owns the memory, if the view shows all of it in its order."""
    return array if array.base is None or array.size != array.base.size else array.base


def test_one_bias_for_one_position_and_of_what_is_no_number():
    spec = lcmulti.LocalConvSpec((5, 6, 3), 4, (5, 6), data_format="channels_last")
    bias = np.array([[[1.0, np.nan, 3.0, 4.0]]])
    np.testing.assert_array_equal(layouts.export_bias(bias, "lasagne-tied", spec), bias[0, 0])
    many = np.broadcast_to(bias, SPECS[2].bias_shape)
    np.testing.assert_array_equal(layouts.export_bias(many, "dl4j", SPECS[2]), bias[0])


def test_one_bias_for_all_positions_cannot_hold_many():
    spec = SPECS[2]
    bias = np.zeros(spec.bias_shape)
    bias[0, 0, 0] = 1
    with pytest.raises(errors.ArgumentError, match="bias: expected one bias for all positions"):
        layouts.export_bias(bias, "dl4j", spec)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda s: layouts.import_kernel(np.zeros(3), "caffe", s), errors.ArgumentError, "layout"),
        (lambda s: layouts.import_kernel(np.zeros(3), 3, s), errors.ArgumentTypeError, "layout"),
        (lambda s: layouts.import_kernel(np.zeros(3), "flax", s), errors.ShapeError, "array"),
        (lambda s: layouts.export_kernel(np.zeros(3), "flax", s), errors.ShapeError, "kernel"),
        (lambda s: layouts.import_kernel(0, "flax", (3, 4)), errors.ArgumentTypeError, "spec"),
        (lambda s: layouts.bias_shape("theano", s), errors.UnsupportedError, "no bias"),
        (lambda s: layouts.kernel_shape("eir", SPECS[1]), errors.UnsupportedError, "one channel"),
        (lambda s: layouts.kernel_shape(
            "flax", lcmulti.LocalConvSpec((5, 4), 4, 2, groups=2, data_format="channels_last")
        ), errors.UnsupportedError, "no groups"),
        (lambda s: layouts.kernel_shape("keras2-3", lcmulti.LocalConvSpec(
            (5, 4), 4, 3, padding=1, padding_mode="reflect", data_format="channels_last"
        )), errors.UnsupportedError, "pads with zeros"),
    ],
)  # fmt: skip
def test_wrong_calls(call, error, message):
    with pytest.raises(error, match=message):
        call(SPECS[2])
