"""Arrays and arguments that are almost right give one clear error, or work as intended."""

from __future__ import annotations

import os

import numpy as np
import pytest
from installed import INSTALLED

import lcmulti
from lcmulti.choosing import settings
from lcmulti.errors import (
    ArgumentError,
    ArgumentTypeError,
    DtypeError,
    LcmultiError,
    ShapeError,
    TooLargeError,
)

X = np.arange(36, dtype="float32").reshape(2, 6, 3)
KERNEL = np.ones((4, 3, 3, 5), "float32")


@pytest.mark.parametrize("backend", INSTALLED)
def test_other_byte_order_is_taken(backend):
    y = lcmulti.local_conv(X.astype(">f4"), KERNEL.astype(">f4"), backend=backend)
    np.testing.assert_array_equal(y, lcmulti.local_conv(X, KERNEL))


@pytest.mark.parametrize("dtype", ["object", "longdouble", "int32", "bool"])
@pytest.mark.parametrize("backend", INSTALLED)
def test_unknown_dtypes_are_named_before_conversion(backend, dtype):
    with pytest.raises(DtypeError, match="kernel: expected dtype"):
        lcmulti.local_conv(X, KERNEL.astype(dtype), backend=backend)


@pytest.mark.parametrize("argument", ["x", "kernel", "bias"])
def test_masked_arrays_are_refused(argument):
    arrays = {"x": X, "kernel": KERNEL, "bias": np.zeros((4, 5), "float32")}
    arrays[argument] = np.ma.masked_array(arrays[argument])
    with pytest.raises(ArgumentTypeError, match=f"{argument}: expected an array without a mask"):
        lcmulti.local_conv(**arrays)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_a_matrix_is_an_array():
    bias = np.matrix(np.ones((4, 5), "float32"))
    y = lcmulti.local_conv(X, KERNEL, bias)
    assert type(y) is np.ndarray
    np.testing.assert_array_equal(y, lcmulti.local_conv(X, KERNEL) + 1)


@pytest.mark.parametrize("function", [lcmulti.local_conv, lcmulti.explain])
def test_backend_that_is_no_name(function):
    with pytest.raises(ArgumentTypeError, match="backend: expected a name or None, got"):
        function(X, KERNEL, backend=["numpy"])


def test_explain_refuses_what_a_spec_has():
    spec = lcmulti.LocalConvSpec((6, 3), 5, 3, data_format="channels_last")
    with pytest.raises(ArgumentError, match="strides: expected nothing beside a LocalConvSpec"):
        lcmulti.explain(spec, strides=2)


SHARED = np.ones((1, 3, 3, 5), "float32")


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("steps", [{"strides": 2**40}, {"strides": 10**30}])
def test_steps_beyond_the_input_are_one_window(backend, steps, mode):
    arguments = {"padding": 1, "padding_mode": mode, "backend": backend}
    expected = lcmulti.local_conv(X, SHARED, strides=8, **arguments)
    np.testing.assert_array_equal(lcmulti.local_conv(X, SHARED, **steps, **arguments), expected)


def test_taps_beyond_the_input_are_one_tap(backend):
    y = lcmulti.local_conv(X, SHARED[:, :1], dilation=10**30, backend=backend)
    np.testing.assert_array_equal(y, lcmulti.local_conv(X, SHARED[:, :1], backend=backend))


@pytest.mark.parametrize("steps", [{"strides": 10**8}, {"strides": 2**62}, {"dilation": 2**62}])
def test_a_huge_output_is_predicted(backend, steps):
    x, kernel = np.ones((2, 900, 5), "float32"), SHARED
    with pytest.raises(TooLargeError) as caught:
        lcmulti.local_conv_transpose(x, kernel, **steps, backend=backend)
    assert caught.value.argument == next(iter(steps))


def test_one_input_may_be_transposed_with_any_stride(backend):
    arguments = {"output_padding": 4, "backend": backend}
    y = lcmulti.local_conv_transpose(X[:, :1], SHARED.swapaxes(-1, -2), strides=2**40, **arguments)
    expected = lcmulti.local_conv_transpose(
        X[:, :1], SHARED.swapaxes(-1, -2), strides=5, **arguments
    )
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(
    "given",
    [
        {"strides": True},
        {"strides": 1.0},
        {"padding": 1},
        {"groups": "valid"},
        {"dilation": "zeros"},
        {"padding_mode": "valid"},
        {"kernel": 1},
        {"kernel": KERNEL},
        {"data_format": "channels_last"},
    ],
    ids=lambda given: f"{next(iter(given))}={next(iter(given.values()))!r:.12}",
)
def test_explain_takes_nothing_that_a_spec_has(given):
    spec = lcmulti.LocalConvSpec((6, 3), 5, 3, data_format="channels_last")
    with pytest.raises(ArgumentError, match=f"^{next(iter(given))}: expected nothing beside a Loc"):
        lcmulti.explain(spec, **given)


@pytest.mark.parametrize("given", [{"batch": -5}, {"dtype": "float32"}, {"device": "moon"}])
def test_explain_takes_nothing_that_arrays_have(given):
    with pytest.raises(ArgumentError, match=f"^{next(iter(given))}: expected nothing beside array"):
        lcmulti.explain(X, KERNEL, **given)


def message_of(function, *arguments, **given):
    with pytest.raises(LcmultiError) as caught:
        function(*arguments, **given)
    return str(caught.value)


def test_arrays_are_shown_by_shape_and_dtype():
    spec = lcmulti.LocalConvSpec((6, 3), 5, 3, data_format="channels_last")
    shown = "got numpy.ndarray of shape (4, 3, 3, 5) and dtype float32"
    assert shown in message_of(lcmulti.explain, spec, KERNEL)
    assert shown in message_of(lcmulti.local_conv, X, KERNEL, strides=KERNEL)
    assert f"got [{shown[4:]}]" in message_of(lcmulti.local_conv, X, KERNEL, groups=[KERNEL])
    assert "got np.float32(2.0)" in message_of(lcmulti.local_conv, X, KERNEL, strides=np.float32(2))


@pytest.mark.parametrize(
    "long", [list(range(10**5)), "x" * 10**5, -(10**5000)], ids=["list", "string", "integer"]
)
def test_what_is_long_is_cut(long):
    assert len(message_of(lcmulti.local_conv, X, KERNEL, groups=long)) < 400


def test_what_came_is_shown_as_it_came():
    assert message_of(lcmulti.local_conv, X, KERNEL, strides=[1, 2]).endswith("got [1, 2]")
    assert message_of(lcmulti.local_conv, X, KERNEL, padding=[(1, 1, 1)]).endswith("[(1, 1, 1)]")


@pytest.mark.parametrize("argument", ["strides", "padding", "dilation", "groups"])
def test_a_list_that_contains_itself(argument):
    endless = []
    endless.append(endless)
    shown = message_of(lcmulti.local_conv, X, KERNEL, **{argument: endless})
    assert shown.startswith(f"{argument}: expected ")


@pytest.mark.parametrize("axes", [30, 31])
def test_as_many_axes_as_numpy_has(axes):
    ones = (1,) * axes
    x, kernel = np.full((2, *ones, 3), 2.0), np.ones((*ones, *ones, 3, 5))
    np.testing.assert_array_equal(lcmulti.local_conv(x, kernel), np.full((2, *ones, 5), 6.0))


def test_settings_cannot_be_assigned():
    with pytest.raises(AttributeError, match=r"with lcmulti.config\(backend='jax'\)"):
        lcmulti.config.backend = "jax"


def test_a_deleted_working_directory_does_no_harm(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    settings.reload()
    try:
        assert lcmulti.local_conv(X, KERNEL).shape == (2, 4, 5)
    finally:
        os.chdir(tmp_path)


def test_sizes_are_checked():
    spec = lcmulti.LocalConvSpec((6, 3), 5, 3, data_format="channels_last")
    with pytest.raises(ArgumentTypeError, match="batch"):
        spec.flops("a")
    with pytest.raises(ArgumentTypeError, match="dtype"):
        spec.bytes(1, None)
    assert type(spec.flops(np.int64(2))) is int


@pytest.mark.torch
def test_sparse_tensors_are_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(ArgumentTypeError, match="x: expected a dense tensor"):
        lcmulti.local_conv(torch.tensor(X).to_sparse(), torch.tensor(KERNEL))


@pytest.mark.jax
@pytest.mark.parametrize("argument", ["x", "kernel", "bias"])
def test_jax_names_the_argument_it_would_round(argument):
    pytest.importorskip("jax")
    arrays = {"x": X, "kernel": KERNEL, "bias": np.zeros((4, 5), "float32")}
    arrays[argument] = arrays[argument].astype("float64")
    with pytest.raises(DtypeError, match=f"^{argument}: expected a dtype of 32 bits"):
        lcmulti.local_conv(**arrays, backend="jax")


@pytest.mark.tensorflow
@pytest.mark.parametrize("argument", ["x", "kernel", "bias"])
def test_tensorflow_names_the_argument_of_unknown_rank(argument):
    tf = pytest.importorskip("tensorflow")
    arrays = {"x": X, "kernel": KERNEL, "bias": np.zeros((4, 5), "float32")}
    unknown = tf.TensorSpec(None, tf.float32)

    @tf.function(input_signature=[unknown])
    def function(array):
        return lcmulti.local_conv(**arrays | {argument: array})

    with pytest.raises(ShapeError, match=f"^{argument}: expected a tensor of known rank"):
        function(tf.constant(arrays[argument]))


@pytest.mark.tensorflow
def test_autograph_does_not_wrap_our_errors():
    tf = pytest.importorskip("tensorflow")
    function = tf.function(lambda x, kernel: lcmulti.local_conv(x, kernel, strides=0))
    with pytest.raises(LcmultiError, match="strides: expected a positive integer"):
        function(tf.constant(X), tf.constant(KERNEL))
