"""Geometries and calls that the tests of the TensorFlow backend share."""

import numpy as np
import tensorflow as tf

import lcmulti
from lcmulti import LocalConvSpec
from lcmulti.algorithms import reference
from lcmulti.dtypes import DTYPES

NAMES = ("composed", "blocked", "disjoint", "conv")
GENEROUS, TIGHT = 2**28, 6000

GEOMETRIES = {
    "2d": LocalConvSpec((7, 6, 4), 6, (3, 2), data_format="channels_last"),
    "strides, uneven padding": LocalConvSpec(
        (7, 6, 4), 6, (3, 2), strides=(2, 1), padding=((1, 2), (0, 1)), data_format="channels_last"
    ),
    "dilation with strides": LocalConvSpec(
        (11, 3), 5, 3, strides=2, dilation=2, padding="same", data_format="channels_last"
    ),
    "groups": LocalConvSpec(
        (7, 6, 4), 6, (3, 2), groups=2, padding=1, data_format="channels_last"
    ),
    "rows share": LocalConvSpec(
        (7, 6, 4), 6, (3, 2), shared_axes=(1,), groups=2, data_format="channels_last"
    ),
    "convolution": LocalConvSpec(
        (7, 6, 4), 6, (3, 2), strides=2, padding=1, shared_axes=(0, 1), data_format="channels_last"
    ),
    "1d convolution": LocalConvSpec((11, 3), 2, 4, shared_axes=(0,), data_format="channels_last"),
    "3d": LocalConvSpec((5, 4, 6, 2), 3, (2, 3, 2), data_format="channels_last"),
    "3d convolution": LocalConvSpec(
        (5, 4, 6, 2), 3, (2, 3, 2), shared_axes=(0, 1, 2), data_format="channels_last"
    ),
    "disjoint, remainder": LocalConvSpec((11, 3), 3, 4, strides=4, data_format="channels_last"),
    "disjoint, 2d, groups, shared": LocalConvSpec(
        (11, 8, 4), 6, (4, 2), strides=(4, 2), groups=2, shared_axes=(1,),
        data_format="channels_last",
    ),
    "disjoint, 2d, rows shared": LocalConvSpec(
        (9, 8, 2), 3, (4, 2), strides=(4, 2), shared_axes=(0,), data_format="channels_last"
    ),
    "gaps": LocalConvSpec((11, 3), 3, 2, strides=4, data_format="channels_last"),
}  # fmt: skip


def arrays(spec, batch=3, dtype="float64", seed=0):
    """Draw x, kernel and dy."""
    rng = np.random.default_rng(seed)

    def draw(shape):
        values = rng.standard_normal(shape)
        if DTYPES[dtype].name.startswith("complex"):
            values = values + 1j * rng.standard_normal(shape)
        return tf.cast(tf.constant(values), dtype)

    return (
        draw((batch, *spec.input_shape)),
        draw(spec.kernel_shape),
        draw((batch, *spec.output_shape)),
    )


def call(spec, implementation="blocked"):
    return lambda x, kernel: lcmulti.local_conv(
        x, kernel, implementation=implementation, **spec.arguments()
    )


def close(actual, expected, dtype="float64", scale=64):
    u = DTYPES[dtype].roundoff
    np.testing.assert_allclose(
        np.asarray(actual), np.asarray(expected), rtol=scale * u, atol=scale * u * 4
    )


def value_and_gradients(function, x, kernel, dy):
    with tf.GradientTape() as tape:
        tape.watch((x, kernel))
        y = function(x, kernel)
    return (y, *tape.gradient(y, (x, kernel), dy))


def expected_maps(spec, x, kernel, dy):
    x, kernel, dy = x.numpy(), kernel.numpy(), dy.numpy()
    return (
        reference.forward(x, kernel, spec),
        reference.input_grad(dy, kernel.conj(), spec),
        reference.kernel_grad(x.conj(), dy, spec),
    )
