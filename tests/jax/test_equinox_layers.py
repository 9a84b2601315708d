"""Layers for Equinox: values, initial weights, dtypes, files, training and errors."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("jax")
eqx = pytest.importorskip("equinox")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import lcmulti_jax.equinox as for_equinox  # noqa: E402
from helpers_jax import require_errors  # noqa: E402

import lcmulti  # noqa: E402
from lcmulti.errors import ArgumentError, ShapeError  # noqa: E402

pytestmark = [pytest.mark.jax, pytest.mark.sampled]

SIZES = {1: (9,), 2: (8, 7), 3: (5, 4, 6)}


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, "VALID", "SAME", "SAME_LOWER"])
def test_equinox_equals_its_convolution_when_weights_are_shared(ndim, padding):
    key = jax.random.key(0)
    conv = getattr(eqx.nn, f"Conv{ndim}d")(4, 6, 2, padding=padding, groups=2, key=key)
    layer = getattr(for_equinox, f"LocallyConnected{ndim}d")(
        4, 6, 2, SIZES[ndim], padding=padding, groups=2, key=key
    )
    kernel = jnp.moveaxis(conv.weight, (0, 1), (-1, -2))
    layer = eqx.tree_at(
        lambda layer: (layer.weight, layer.bias),
        layer,
        (
            jnp.broadcast_to(kernel, layer.weight.shape),
            jnp.broadcast_to(conv.bias.reshape(-1), layer.bias.shape),
        ),
    )
    x = jax.random.normal(key, (2, 4, *SIZES[ndim]))
    close(jax.vmap(layer)(x), jax.vmap(conv)(x))
    close(layer(x[0]), conv(x[0]))


def test_equinox_starts_as_its_convolution_at_every_position():
    conv = eqx.nn.Conv2d(8, 64, 5, key=jax.random.key(0))
    layer = for_equinox.LocallyConnected2d(8, 64, 5, 9, key=jax.random.key(0))
    bound = 1 / (8 * 25) ** 0.5
    for each in (layer.weight, layer.bias, conv.weight, conv.bias):
        assert abs(each).max() <= bound
    assert float(layer.weight.std()) == pytest.approx(float(conv.weight.std()), rel=0.02)


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("dtype", ["bfloat16", "complex64"])
def test_equinox_dtypes(dtype, rank):
    layer = for_equinox.LocallyConnected2d(
        2, 3, 3, 6, rank=rank, dtype=jnp.dtype(dtype), key=jax.random.key(0)
    )
    kernel = np.asarray(layer.kernel())
    assert kernel.dtype.name == layer(jnp.ones((2, 6, 6), dtype)).dtype.name == dtype
    if dtype == "complex64":
        assert kernel.imag.std() == pytest.approx(kernel.real.std(), rel=0.2)


@pytest.mark.slow
def test_equinox_low_rank_share_and_serialise(tmp_path):
    layer = for_equinox.LocallyConnected2d(3, 4, 3, 8, rank=2, key=jax.random.key(0))
    assert layer.weight is None
    x = jax.random.normal(jax.random.key(1), (32, 3, 8, 8))
    y = lcmulti.local_conv(x, layer.kernel(), layer.bias, data_format="channels_first")
    close(jax.vmap(layer)(x), y)
    close(layer(x[0]), y[0])
    shared = layer.share()
    close(shared.coefficients, jnp.broadcast_to(layer.coefficients.mean((0, 1)), (6, 6, 2)))
    close(layer.share((0,)).bias, jnp.broadcast_to(layer.bias.mean(0), (6, 6, 4)))
    eqx.tree_serialise_leaves(tmp_path / "layer.eqx", layer)
    other = for_equinox.LocallyConnected2d(3, 4, 3, 8, rank=2, key=jax.random.key(5))
    close(eqx.tree_deserialise_leaves(tmp_path / "layer.eqx", other)(x[0]), y[0])


def test_equinox_in_a_sequential_and_a_trained_step():
    keys = jax.random.split(jax.random.key(0), 3)
    model = eqx.nn.Sequential(
        [
            for_equinox.LocallyConnected2d(1, 4, 3, 8, key=keys[0]),
            eqx.nn.Lambda(jax.nn.relu),
            for_equinox.LocallyConnected2d(4, 2, 3, 6, stride=3, key=keys[1]),
        ]
    )
    x = jax.random.normal(keys[2], (5, 1, 8, 8))

    @eqx.filter_jit
    def step(model):
        loss, gradient = eqx.filter_value_and_grad(
            lambda model: jnp.square(jax.vmap(model)(x)).mean()
        )(model)
        return loss, eqx.apply_updates(model, jax.tree.map(lambda g: -0.1 * g, gradient))

    before, model = step(model)
    after, _ = step(model)
    assert 0 < float(after) < float(before)


def test_bad_input_and_arguments():
    require_errors(
        lambda **a: for_equinox.LocallyConnected2d(
            3, 4, 3, key=jax.random.key(0), **({"input_size": (6, 6)} | a)
        ),
        (3, 6, 7),
    )


@pytest.mark.parametrize("argument", ["in_channels", "out_channels", "stride", "groups"])
def test_equinox_errors_name_arguments_as_equinox_does(argument):
    right = dict(in_channels=3, out_channels=3, kernel_size=3, input_size=7)
    with pytest.raises(ArgumentError) as caught:
        for_equinox.LocallyConnected2d(**(right | {argument: 0}), key=jax.random.key(0))
    assert caught.value.argument == argument


@pytest.mark.parametrize("rank", [None, 2])
def test_equinox_another_input_size_says_how_to_rebuild(rank):
    layer = for_equinox.LocallyConnected2d(3, 4, 3, 7, rank=rank, key=jax.random.key(0))
    with pytest.raises(ShapeError) as caught:
        layer(jnp.ones((3, 9, 8)))
    assert str(caught.value) == (
        "inputs: expected samples of shape (3, 7, 7), which the weights were made for, "
        "got (3, 9, 8); for these build a layer with in_channels=3, input_size=(9, 8)"
    )
    with pytest.raises(ShapeError, match=r"jax.vmap\(layer\) a batch"):
        layer(jnp.ones((2, 3, 7, 7)))
