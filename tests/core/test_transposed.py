"""`local_conv_transpose` on every backend: values, adjointness, derivatives, arguments."""

from __future__ import annotations

import numpy as np
import pytest

import lcmulti
from lcmulti import plugins
from lcmulti.algorithms import reference
from lcmulti.conformance import bounds
from lcmulti.errors import ArgumentError, ShapeError, TooLargeError
from lcmulti.geometry.of_call import spec_of_transposed_call
from lcmulti.geometry.transposed import transposed_arguments

pytestmark = pytest.mark.sampled

GEOMETRIES = {
    "1d": dict(input_shape=(6, 5), filters=3, kernel_size=4),
    "strides and output padding": dict(input_shape=(4, 5, 3), filters=2, kernel_size=(3, 2),
                                       strides=(3, 2), output_padding=(2, 1), padding=1),
    "grouped and dilated": dict(input_shape=(4, 5, 6), filters=4, kernel_size=(3, 2), groups=2,
                                dilation=(2, 1), strides=(2, 1), padding=((1, 2), (0, 1))),
    "shared rows": dict(input_shape=(4, 5, 3), filters=2, kernel_size=3, shared_axes=(0,)),
    "convolution": dict(input_shape=(4, 5, 3), filters=2, kernel_size=3, strides=2,
                        output_padding=1, shared_axes=(0, 1)),
    "disjoint": dict(input_shape=(6, 3), filters=2, kernel_size=2, strides=2),
    "stride over kernel": dict(input_shape=(4, 3), filters=2, kernel_size=2, strides=4,
                               output_padding=3),
    "same": dict(input_shape=(4, 5, 3), filters=2, kernel_size=(3, 4), strides=2, padding="same"),
    "causal": dict(input_shape=(5, 3), filters=2, kernel_size=3, strides=2, padding="causal"),
    "3d": dict(input_shape=(3, 4, 2, 2), filters=3, kernel_size=(2, 3, 2), strides=2),
}  # fmt: skip


def spec_of(name, data_format="channels_last"):
    given = dict(GEOMETRIES[name])
    if data_format == "channels_first":
        *size, channels = given["input_shape"]
        given["input_shape"] = (channels, *size)
    return lcmulti.transposed_spec(**given, data_format=data_format)


def arrays(spec, rng, dtype="float64", batch=2):
    shapes = ((batch, *spec.output_shape), spec.kernel_shape, (*spec.input_size, spec.in_channels))
    return tuple(rng.integers(-4, 5, shape).astype(dtype) for shape in shapes)


def operation(spec):
    return lambda *args: lcmulti.local_conv_transpose(*args, **transposed_arguments(spec))


def moved(array, spec):
    """Return the array with channels last."""
    return np.moveaxis(array, 1, -1) if spec.data_format == "channels_first" else array


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_value_is_within_the_bound_of_the_reference(backend, name, data_format, rng):
    spec = spec_of(name, data_format)
    x, kernel, bias = (rng.standard_normal(a.shape).astype("float32") for a in arrays(spec, rng))
    y = lcmulti.local_conv_transpose(x, kernel, bias, backend=backend, **transposed_arguments(spec))
    assert y.shape == (2, *spec.input_shape)
    x, y, computed = moved(x, spec), moved(y, spec), spec.computed()
    exact = [each.astype("float64") for each in (x, kernel, bias)]
    expected = reference.input_grad(exact[0], exact[1], computed) + exact[2]
    size = reference.input_grad(abs(exact[0]), abs(exact[1]), computed) + abs(exact[2])
    count = bounds.terms(spec, 2, None).input_grad
    assert bounds.compare(y, expected, bounds.dot_bound(count, size, 2.0**-24, False)).ok


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_it_is_the_adjoint_to_the_last_bit(backend, name, data_format, rng):
    """Both sides are equal, because sums of small integers are exact."""
    spec = spec_of(name, data_format)
    x, kernel, _ = arrays(spec, rng, "float32")
    seen = rng.integers(-4, 5, (2, *spec.input_shape)).astype("float32")
    arguments = transposed_arguments(spec)
    transposed = lcmulti.local_conv_transpose(x, kernel, backend=backend, **arguments)
    del arguments["output_padding"]
    direct = lcmulti.local_conv(seen, kernel, backend=backend, **arguments)
    assert (transposed * seen).sum() == (x * direct).sum() != 0


def differentiable(backend):
    entry = plugins.registry().backends[backend]
    if "reverse" not in entry.capabilities:
        pytest.skip("no differentiation")
    return plugins.load_backend(backend)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_derivatives_of_both_orders_and_modes(backend, name, rng):
    owner, spec = differentiable(backend), spec_of(name)
    x, kernel, bias = arrays(spec, rng, "float32")
    dy, dx, dkernel = (
        rng.integers(-2, 3, s).astype("float32")
        for s in ((2, *spec.input_shape), x.shape, kernel.shape)
    )
    tensors = tuple(map(owner.from_numpy, (x, kernel, bias)))
    run, plain = operation(spec), owner.to_numpy
    value, grads = owner.vjp(run, tensors, owner.from_numpy(dy))
    computed = spec.computed()
    np.testing.assert_array_equal(plain(value), reference.input_grad(x, kernel, computed) + bias)
    expected = (
        reference.forward(dy, kernel, computed),
        reference.kernel_grad(dy, x, computed),
        dy.sum(0),
    )
    for ours, theirs in zip(grads, expected, strict=True):
        np.testing.assert_array_equal(plain(ours), theirs)

    # The gradient in x is linear in the kernel: its tangent is the forward map of the tangent.
    def gradient(kernel):
        return owner.vjp(lambda x: run(x, kernel), (tensors[0],), owner.from_numpy(dy))[1][0]

    tangent = (owner.from_numpy(dkernel),)
    _, second = owner.jvp(gradient, (tensors[1],), tangent)
    np.testing.assert_array_equal(plain(second), reference.forward(dy, dkernel, computed))
    _, first = owner.jvp(run, tensors[:2], tuple(map(owner.from_numpy, (dx, dkernel))))
    expected = reference.input_grad(dx, kernel, computed)
    np.testing.assert_array_equal(
        plain(first), expected + reference.input_grad(x, dkernel, computed)
    )


def test_every_size_with_one_input_is_reached():
    for extra in range(3):
        spec = lcmulti.transposed_spec((4, 1), 1, 2, strides=3, output_padding=extra)
        assert spec.input_size == (11 + extra,)
        assert spec.output_size == (4,)


@pytest.mark.parametrize(
    ("changes", "error", "argument", "shown"),
    [
        (dict(output_padding=2), ArgumentError, "output_padding", "less than the strides (2, 2)"),
        (dict(output_padding=-1), ArgumentError, "output_padding", "at least 0"),
        (dict(padding=9), ShapeError, "padding", "an output of positive size"),
        (dict(groups=2), ArgumentError, "groups", "a divisor of filters=3"),
        (dict(x=np.ones((2, 5, 5, 3))), ShapeError, "kernel", "the size of x"),
        (dict(x=np.ones((2, 4, 5, 2))), ShapeError, "kernel", "the channels of x"),
        (dict(bias=np.ones((4, 5, 2))), ShapeError, "bias", "output axes (9, 11)"),
        (dict(bias=np.ones(3)), ShapeError, "bias", "shape (9, 11, 2)"),
    ],
)
def test_wrong_calls(backend, changes, error, argument, shown):
    right = dict(x=np.ones((2, 4, 5, 3)), kernel=np.ones((4, 5, 3, 3, 2, 3)), strides=2)
    lcmulti.local_conv_transpose(**right, backend="numpy")
    if backend == "jax":
        right = {k: v.astype("float32") if k != "strides" else v for k, v in right.items()}
        changes = {
            k: v.astype("float32") if isinstance(v, np.ndarray) else v for k, v in changes.items()
        }
    with pytest.raises(error) as caught:
        lcmulti.local_conv_transpose(**(right | changes), backend=backend)
    assert shown in str(caught.value)
    assert caught.value.argument == argument


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_shapes_say_what_is_shared(data_format):
    """An axis of length 1 is shared and one of length 2 is not, whatever is configured."""
    x = (2, 2, 3, 7) if data_format == "channels_last" else (2, 7, 2, 3)
    spec = spec_of_transposed_call(
        x, (2, 1, 3, 2, 5, 7), None, groups=1, data_format=data_format,
        strides=1, padding="valid", dilation=1, output_padding=None,
    )  # fmt: skip
    assert spec.shared_axes == (1,)
    assert spec.data_format == data_format


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [
        ("strides", {"strides": 2**40}),
        ("strides", {"strides": 2**40, "dilation": 2**40}),
        ("dilation", {"dilation": 2**40}),
    ],
)
def test_what_makes_an_output_too_large_is_named(argument, arguments):
    x, kernel = np.ones((2, 4, 7), "float32"), np.ones((4, 3, 5, 7), "float32")
    with pytest.raises(TooLargeError, match=f"^{argument}: "):
        lcmulti.local_conv_transpose(x, kernel, **arguments)
