"""Geometries and calls that the tests of the JAX backend share, and its 64-bit mode."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers_geometries import COMMON
from jax_releases import enable_x64

import lcmulti
from lcmulti import plugins
from lcmulti.errors import ArgumentError, ShapeError
from lcmulti.plugins.contract import Problem, Resources

RESOURCES = Resources(2**28)
GEOMETRIES = COMMON | {
    "disjoint rest": dict(input_shape=(13, 7, 4), filters=4, kernel_size=(2, 3), strides=(2, 3),
                          groups=2, shared_axes=(1,)),
    "deep padding": dict(input_shape=(5, 3), filters=4, kernel_size=2, padding=5),
}  # fmt: skip
IMPLEMENTATIONS = ("conv", "disjoint", "blocked", "composed")
TRANSFORMED = ("grouped", "convolution", "disjoint rest")  # each with its own implementation


@pytest.fixture(autouse=True)
def _x64():
    with enable_x64(True):
        yield


def spec_of(name):
    return lcmulti.LocalConvSpec(**GEOMETRIES[name], data_format="channels_last")


def random(seed, *shapes, dtype="float64"):
    generator = np.random.default_rng(seed)
    arrays = [generator.standard_normal(shape) for shape in shapes]
    if np.dtype(dtype).kind == "c":
        arrays = [array + 1j * generator.standard_normal(array.shape) for array in arrays]
    return tuple(jnp.asarray(array, dtype) for array in arrays)


def arrays_of(spec, batch=2, dtype="float64"):
    """Draw ``x``, ``kernel`` and a cotangent of the result."""
    shapes = (batch, *spec.input_shape), spec.kernel_shape, (batch, *spec.output_shape)
    return random(0, *shapes, dtype=dtype)


def problem_of(spec, batch=2, dtype="float64", resources=RESOURCES):
    return Problem(spec.computed(), batch, dtype, "cpu", False, resources)


def load(implementation):
    return plugins.load_implementation("jax", implementation)


def cases(names=tuple(GEOMETRIES), implementations=IMPLEMENTATIONS):
    return [
        pytest.param(name, implementation, id=f"{name}-{implementation}")
        for name in names
        for implementation in implementations
        if load(implementation).decline(problem_of(spec_of(name))) is None
    ]


def operation(spec, implementation="auto"):
    return partial(lcmulti.local_conv, implementation=implementation, **spec.arguments())


def naive(spec):
    """Write the operation in ``jax.numpy`` alone, so that JAX differentiates it by itself."""

    def run(x, kernel):
        axes, groups = spec.ndim, spec.groups
        x = jnp.pad(x, ((0, 0), *spec.padding, (0, 0)))
        total = 0
        for tap, seen in spec.taps():
            window = x[:, *seen]
            window = window.reshape(*window.shape[:-1], groups, spec.in_channels // groups)
            weights = kernel[(slice(None),) * axes + tap]
            weights = weights.reshape(*weights.shape[:-1], groups, -1)
            total += jnp.einsum("n...gc,...cgf->n...gf", window, weights)
        return total.reshape(x.shape[0], *spec.output_shape)

    return run


def near(actual, expected, rtol=1e-11):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol), actual, expected
    )


def require_errors(make, wrong_shape):
    """Require that layers from *make* refuse inputs of *wrong_shape*, and wrong arguments."""
    with pytest.raises(ShapeError) as caught:
        make()(jnp.ones(wrong_shape))
    assert "samples of shape" in str(caught.value)
    assert "build a layer with in_" in str(caught.value)
    for changes, argument in (
        (dict(input_size=(2, 2), padding=0), "kernel_size"),
        (dict(rank=0), "rank"),
        (dict(shared_axes=(3,)), "shared_axes"),
        (dict(shared_axes=1), "shared_axes"),
        (dict(padding="some"), "padding"),
        (dict(input_size=(6, 6, 6)), "input_size"),
    ):
        with pytest.raises(ArgumentError) as caught:
            make(**changes)
        assert caught.value.argument == argument
