"""Each layout of another library agrees with that library, or with loops by its definition."""

import itertools
from math import prod

import numpy as np
import pytest

import lcmulti
from lcmulti import errors
from lcmulti.weights import layouts
from lcmulti.weights.layouts import LAYOUTS

# All sizes differ and there are several channels, so that a wrong order fails.
SPECS = {
    1: lcmulti.LocalConvSpec((9, 3), 4, 2, strides=3, data_format="channels_last"),
    2: lcmulti.LocalConvSpec((5, 8, 3), 4, (2, 3), strides=(1, 2), data_format="channels_last"),
    3: lcmulti.LocalConvSpec((3, 4, 6, 2), 5, (1, 2, 3), data_format="channels_last"),
}


def spec_of(axes, data_format="channels_last", padding="valid", channels=3, kernel=None):
    size, k, s = {1: ((9,), (2,), (3,)), 2: ((5, 8), (2, 3), (1, 2))}[axes]
    shape = (*size, channels) if data_format == "channels_last" else (channels, *size)
    return lcmulti.LocalConvSpec(
        shape, 4, kernel or k, strides=s, padding=padding, data_format=data_format
    )


def indices(spec):
    """Every ``(o, k, c, f)``, with the input position that each tap reads."""
    ranges = [spec.output_size, spec.kernel_size, (spec.in_channels,), (spec.filters,)]
    flat = list(itertools.chain(*ranges))
    for index in itertools.product(*map(range, flat)):
        n = spec.ndim
        o, k, (c, f) = index[:n], index[n : 2 * n], index[2 * n :]
        yield o, k, c, f


def seen(spec, o, k):
    i = tuple(
        a * s + t - low for a, t, s, (low, _) in zip(o, k, spec.strides, spec.padding, strict=True)
    )
    return i, all(0 <= a < n for a, n in zip(i, spec.input_size, strict=True))


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


@pytest.mark.jax
@pytest.mark.parametrize("axes", [1, 2])
def test_flax_is_lax(axes, rng):
    """Flax's ConvLocal passes its kernel to this function unchanged."""
    jax = pytest.importorskip("jax")
    spec = spec_of(axes)
    x = rng.standard_normal((2, *spec.input_shape), dtype="float32")
    theirs = rng.standard_normal(layouts.kernel_shape("flax", spec), dtype="float32")
    letters = "HW"[:axes]
    y = jax.lax.conv_general_dilated_local(
        x, theirs, spec.strides, "VALID", spec.kernel_size,
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"), precision="highest",
    )  # fmt: skip
    kernel = layouts.import_kernel(theirs, "flax", spec)
    ours = lcmulti.local_conv(x, kernel, strides=spec.strides)
    np.testing.assert_allclose(ours, y, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(layouts.export_kernel(kernel, "flax", spec), theirs)


@pytest.mark.torch
def test_pytorch_recipe_runs(rng):
    """The module that people copy: unfold twice, multiply by ``(1, F, C, oH, oW, kH*kW)``, sum."""
    torch = pytest.importorskip("torch")
    spec = spec_of(2, "channels_first")
    x = torch.from_numpy(rng.standard_normal((2, *spec.input_shape)))
    theirs = rng.standard_normal(layouts.kernel_shape("pytorch-recipe", spec))
    bias = rng.standard_normal(layouts.bias_shape("pytorch-recipe", spec))
    (kh, kw), (sh, sw) = spec.kernel_size, spec.strides
    patches = x.unfold(2, kh, sh).unfold(3, kw, sw)
    patches = patches.contiguous().view(*patches.shape[:-2], -1)
    y = (patches.unsqueeze(1) * torch.from_numpy(theirs)).sum([2, -1]) + torch.from_numpy(bias)
    ours = lcmulti.local_conv(
        x.numpy(),
        layouts.import_kernel(theirs, "pytorch-recipe", spec),
        layouts.import_bias(bias, "pytorch-recipe", spec),
        strides=spec.strides,
        data_format="channels_first",
    )
    np.testing.assert_allclose(ours, y.numpy(), rtol=1e-12, atol=1e-12)


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


@pytest.mark.parametrize(
    ("size", "stride", "pad"), [(3, 1, 1), (3, 2, 1), (5, 2, 1), (3, 2, 0), (2, 1, 1)]
)
def test_darknet_computes_so(size, stride, pad, rng):
    """Darknet's `forward_local_layer` as loops: a row of weights for each position."""
    height, channels, filters = 7, 2, 3
    out = (height - (1 if pad else size)) // stride + 1
    content = rng.standard_normal(filters * out**2 * (1 + channels * size**2)).astype("float32")
    image = rng.standard_normal((channels, height, height)).astype("float32")
    biases, weights = content[: filters * out**2], content[filters * out**2 :]
    columns = np.zeros((channels * size**2, out**2))
    for row, (c, i, j) in enumerate(np.ndindex(channels, size, size)):
        for at, (y, x) in enumerate(np.ndindex(out, out)):
            down, right = i + y * stride - pad, j + x * stride - pad
            if 0 <= down < height and 0 <= right < height:
                columns[row, at] = image[c, down, right]
    expected = biases.reshape(filters, out**2).astype("float64")
    for at in range(out**2):
        one = weights[at * filters * len(columns) :][: filters * len(columns)]
        expected[:, at] += one.reshape(filters, len(columns)) @ columns[:, at]

    after = (out - 1) * stride + size - height - pad
    spec = lcmulti.LocalConvSpec(
        (channels, height, height), filters, size, strides=stride,
        padding=[(pad, max(after, 0))] * 2, data_format="channels_first",
    )  # fmt: skip
    assert spec.output_size == (out, out)
    kernel = layouts.import_kernel(
        weights.reshape(layouts.kernel_shape("darknet", spec)), "darknet", spec
    )
    bias = layouts.import_bias(biases.reshape(layouts.bias_shape("darknet", spec)), "darknet", spec)
    came = lcmulti.local_conv(image[None], kernel, bias, strides=spec.strides, padding=spec.padding,
                              data_format="channels_first")  # fmt: skip
    np.testing.assert_allclose(came.reshape(filters, -1), expected, rtol=1e-4, atol=1e-4)
