"""The same weights give the same outputs in every framework's layer, through every file."""

from __future__ import annotations

import numpy as np
import pytest

import lcmulti

for _package in ("safetensors", "torch", "jax", "flax", "equinox"):
    pytest.importorskip(_package)

SIZE, CHANNELS, FILTERS, WINDOW, STRIDES = (9, 8), 4, 6, (3, 2), (2, 1)
GEOMETRY = dict(strides=STRIDES, padding=((1, 1), (0, 1)), groups=2)
SPEC = lcmulti.LocalConvSpec(
    (*SIZE, CHANNELS), FILTERS, WINDOW, **GEOMETRY, data_format="channels_last"
)


def keras_layer(kernel, bias):
    import keras
    from lcmulti_keras import LocallyConnected2D

    layer = LocallyConnected2D(
        FILTERS, WINDOW, STRIDES, padding=GEOMETRY["padding"], groups=2,
        data_format="channels_last",
    )  # fmt: skip
    layer.build((None, *SIZE, CHANNELS))
    layer.set_weights([kernel, bias])
    run = lambda x: keras.ops.convert_to_numpy(layer(x))  # noqa: E731
    return run, (layer.kernel.value, layer.bias.value), layer.spec


def torch_layer(kernel, bias):
    import lcmulti_torch
    import torch

    layer = lcmulti_torch.LocallyConnected2d(
        CHANNELS, FILTERS, WINDOW, SIZE, STRIDES, GEOMETRY["padding"], groups=2
    )
    layer.load_state_dict({"weight": torch.tensor(kernel), "bias": torch.tensor(bias)})

    def run(x):
        y = layer(torch.from_numpy(np.moveaxis(x, -1, 1).copy()))
        return y.movedim(1, -1).detach().numpy()

    return run, (layer.weight, layer.bias), layer.spec


def nnx_layer(kernel, bias):
    from flax import nnx
    from lcmulti_jax.nnx import LocallyConnected

    layer = LocallyConnected(
        CHANNELS, FILTERS, WINDOW, SIZE, STRIDES, padding=GEOMETRY["padding"],
        feature_group_count=2, rngs=nnx.Rngs(0),
    )  # fmt: skip
    layer.kernel[...], layer.bias[...] = kernel, bias
    return (lambda x: np.asarray(layer(x))), (layer.kernel[...], layer.bias[...]), layer.spec


def equinox_layer(kernel, bias):
    import equinox as eqx
    import jax
    from lcmulti_jax.equinox import LocallyConnected2d

    layer = LocallyConnected2d(
        CHANNELS, FILTERS, WINDOW, SIZE, STRIDES, GEOMETRY["padding"], groups=2,
        key=jax.random.key(0),
    )  # fmt: skip
    pair = tuple(map(jax.numpy.asarray, (kernel, bias)))
    layer = eqx.tree_at(lambda layer: (layer.weight, layer.bias), layer, pair)
    run = lambda x: np.moveaxis(np.asarray(jax.vmap(layer)(np.moveaxis(x, -1, 1))), 1, -1)  # noqa: E731
    return run, (layer.weight, layer.bias), layer.spec


def numpy_call(kernel, bias):
    run = lambda x: lcmulti.local_conv(  # noqa: E731
        x, kernel, bias, **GEOMETRY, data_format="channels_last", backend="numpy"
    )
    return run, (kernel, bias), SPEC


WALK = (keras_layer, torch_layer, nnx_layer, equinox_layer, numpy_call, keras_layer)


def test_weights_walk_through_every_framework(tmp_path, rng):
    try:
        import lcmulti_keras  # noqa: F401

        walk = WALK
    except ImportError:
        walk = WALK[1:-1]
    x = rng.standard_normal((3, *SIZE, CHANNELS)).astype("float32")
    kernel, bias = (
        rng.standard_normal(shape).astype("float32")
        for shape in (SPEC.kernel_shape, SPEC.bias_shape)
    )
    first = (kernel, bias)
    expected = lcmulti.local_conv(
        *(each.astype("float64") for each in (x, kernel, bias)),
        **GEOMETRY, data_format="channels_last", implementation="reference", backend="numpy",
    )  # fmt: skip
    limit = (SPEC.terms + 2) * 2.0**-24 * lcmulti.local_conv(
        *(abs(each).astype("float64") for each in (x, kernel, bias)),
        **GEOMETRY, data_format="channels_last", backend="numpy",
    )  # fmt: skip
    for step, make in enumerate(walk):
        run, weights, spec = make(kernel, bias)
        assert (abs(run(x) - expected) <= limit).all(), make.__name__
        path = tmp_path / f"{step}.safetensors"
        lcmulti.save_weights(path, *weights, spec=spec)
        kernel, bias, _, transposed = lcmulti.load_weights(path, SPEC)
        assert not transposed
        for one, other in zip((kernel, bias), first, strict=True):
            np.testing.assert_array_equal(one, other)  # to the last bit
