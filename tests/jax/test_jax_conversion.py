"""Layers of Flax NNX and Equinox: conversion from and to convolutions, fusing, missing packages."""

from __future__ import annotations

import inspect
import subprocess
import sys
import warnings

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

from lcmulti.errors import ArgumentError, ArgumentTypeError  # noqa: E402

pytestmark = [pytest.mark.jax, pytest.mark.sampled]
KEY = jax.random.key(1)


def few(names, *fast):
    """Mark all *names* of cases as slow, but those in *fast*."""
    slow = pytest.mark.slow
    return [pytest.param(name, marks=() if name in fast else slow) for name in names]


def near(ours, theirs):
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


CONVOLUTIONS = {
    "plain": {},
    "stride": {"strides": 2, "padding": 1},
    "dilation": {"padding": "VALID", "kernel_dilation": 2},
    "groups": {"padding": ((1, 2), (0, 1)), "feature_group_count": 2},
    "circular": {"padding": "CIRCULAR"},
    "reflect": {"padding": "REFLECT"},
    "no bias": {"use_bias": False},
    "mask": {"mask": np.arange(216).reshape(3, 3, 4, 6) % 2},
}


@pytest.mark.parametrize("name", few(CONVOLUTIONS, "groups"))
def test_nnx_from_conv_and_back(name):
    nnx = pytest.importorskip("flax.nnx")
    from lcmulti_jax.nnx import LocallyConnected
    from lcmulti_jax.nnx_compat import put

    conv = nnx.Conv(4, 6, (3, 3), rngs=nnx.Rngs(1), **CONVOLUTIONS[name])
    if conv.bias is not None:
        put(conv.bias, jnp.arange(6.0))
    x = jax.random.normal(KEY, (2, 7, 6, 4))
    for shared in ((0,), ()):
        layer = LocallyConnected.from_conv(conv, (7, 6), shared_axes=shared)
        near(layer(x), conv(x))
    near(layer.to_conv()(x), conv(x))
    put(layer.kernel, layer.kernel[...].at[0, 0].add(1))
    with pytest.raises(ArgumentError, match=r"kernel: .*differ by up to 1 between"):
        layer.to_conv()
    assert layer.to_conv(tolerance=None).kernel.shape == conv.kernel.shape


TRANSPOSED = {
    "plain": {},
    "stride": {"strides": (2, 3)},
    "valid": {"padding": "VALID", "strides": (2, 2)},
    "gaps": {"padding": "VALID", "strides": (4, 4)},
    "pairs": {"padding": ((1, 2), (0, 1)), "strides": (2, 2)},
    "dilation": {"padding": "SAME", "kernel_dilation": (2, 2), "use_bias": False},
    "turned": {"transpose_kernel": True, "strides": (2, 1)},
}


@pytest.mark.parametrize("name", few(TRANSPOSED, "pairs"))
def test_nnx_transposed_from_conv_and_back(name):
    nnx = pytest.importorskip("flax.nnx")
    from lcmulti_jax.nnx import LocallyConnectedTranspose
    from lcmulti_jax.nnx_compat import put

    channels = (4, 4) if name == "turned" else (4, 6)
    conv = nnx.ConvTranspose(*channels, (3, 3), rngs=nnx.Rngs(1), **TRANSPOSED[name])
    if conv.bias is not None:
        put(conv.bias, jnp.arange(float(channels[1])))
    x = jax.random.normal(KEY, (2, 5, 4, 4))
    layer = LocallyConnectedTranspose.from_conv(conv, (5, 4))
    near(layer(x), conv(x))
    near(layer.to_conv()(x), conv(x))


def test_nnx_fuses_a_batch_normalisation():
    nnx = pytest.importorskip("flax.nnx")
    from lcmulti_jax.nnx import LocallyConnected, LocallyConnectedTranspose, fuse_bn
    from lcmulti_jax.nnx_compat import put

    rngs = nnx.Rngs(0)
    bn = nnx.BatchNorm(6, rngs=rngs)
    for i, each in enumerate((bn.scale, bn.bias, bn.mean, bn.var)):
        put(each, jnp.arange(1.0, 7) / (i + 1))
    x = jax.random.normal(KEY, (2, 6, 6, 4))
    for layer in (
        LocallyConnected(4, 6, (3, 3), (6, 6), feature_group_count=2, rngs=rngs),
        LocallyConnected(4, 6, (6, 6), (6, 6), padding="VALID", use_bias=False, rngs=rngs),
        LocallyConnected(4, 6, (3, 3), (6, 6), rank=2, use_bias=False, rngs=rngs),
        LocallyConnectedTranspose(
            4, 6, (3, 3), (6, 6), strides=2, feature_group_count=2, shared_axes=(0,), rngs=rngs
        ),
    ):
        before = layer(x)
        fused = fuse_bn(layer, bn)
        near(fused(x), bn(before, use_running_average=True))
        near(layer(x), before)  # the layer itself is not changed
        assert type(fused) is type(layer)
        gradient = nnx.grad(lambda layer: layer(x).sum())(fused)
        assert [each.shape for each in jax.tree.leaves(gradient.bias)] == [fused.bias.shape]
    with pytest.raises(ArgumentError, match="6 features"):
        fuse_bn(layer, nnx.BatchNorm(5, rngs=rngs))


def test_nnx_rounds_once_keeps_kinds_and_refuses_more():
    nnx = pytest.importorskip("flax.nnx")
    from lcmulti_jax.nnx import LocallyConnected, LocallyConnectedTranspose, fuse_bn
    from lcmulti_jax.nnx_compat import put

    class Decayed(nnx.Param):
        pass

    rngs = nnx.Rngs(0)
    bn = nnx.BatchNorm(6, rngs=rngs)
    put(bn.var, jnp.arange(1.0, 7) / 3)
    for kind in (LocallyConnected, LocallyConnectedTranspose):
        half = kind(4, 6, (3, 3), (6, 6), param_dtype=jnp.bfloat16, rngs=rngs)
        half.bias = Decayed(half.bias[...] + 1)
        wide = nnx.clone(half)
        for name in ("kernel", "bias"):
            setattr(wide, name, nnx.Param(getattr(half, name)[...].astype("float32")))
        fused, exact = fuse_bn(half, bn), fuse_bn(wide, bn)
        assert isinstance(fused.bias, Decayed)
        for name in ("kernel", "bias"):
            ours, wanted = (getattr(each, name)[...] for each in (fused, exact))
            assert ours.dtype == jnp.bfloat16
            assert (ours == wanted.astype(jnp.bfloat16)).all()

    class Own(LocallyConnected):
        def __call__(self, inputs):
            return jax.nn.relu(super().__call__(inputs))

    class OwnNormalisation(nnx.BatchNorm):
        def __call__(self, x, **named):
            return jax.nn.relu(super().__call__(x, **named))

    for layer, after in (
        (Own(4, 6, (3, 3), (6, 6), rngs=rngs), bn),
        (fused, OwnNormalisation(6, rngs=rngs)),
    ):
        with pytest.raises(ArgumentError, match="which computes something of its own"):
            fuse_bn(layer, after)


def test_nnx_attributes_are_those_of_flax():
    nnx = pytest.importorskip("flax.nnx")
    from lcmulti_jax.nnx import LocallyConnected, LocallyConnectedTranspose

    for cls in (LocallyConnected, LocallyConnectedTranspose):
        layer = cls(
            4, 6, (3, 2), (9, 8), strides=2, kernel_dilation=(1, 2), padding=1,
            feature_group_count=2, rngs=nnx.Rngs(0),
        )  # fmt: skip
        assert (layer.in_features, layer.out_features) == (4, 6)
        assert (layer.kernel_size, layer.strides) == ((3, 2), (2, 2))
        assert (layer.kernel_dilation, layer.padding) == ((1, 2), ((1, 1), (1, 1)))
        assert (layer.feature_group_count, layer.use_bias) == (2, True)
        assert (layer.input_size, layer.shared_axes) == ((9, 8), ())
        assert layer.full_kernel().shape == layer.kernel.shape


EQUINOX = {
    "plain": {},
    "stride": {"stride": 2, "padding": 1},
    "dilation": {"padding": "SAME", "dilation": 2},
    "groups": {"padding": ((1, 2), (0, 1)), "groups": 2},
    "lower": {"padding": "SAME_LOWER", "stride": 2},
    "circular": {"padding": 1, "padding_mode": "CIRCULAR"},
    "no bias": {"use_bias": False},
}


@pytest.mark.parametrize("name", few(EQUINOX, "groups"))
def test_equinox_from_conv_and_back(name):
    eqx = pytest.importorskip("equinox")
    from lcmulti_jax.equinox import LocallyConnected, LocallyConnected2d, LocallyConnected3d

    conv = eqx.nn.Conv2d(4, 6, 3, key=KEY, **EQUINOX[name])
    x = jax.random.normal(KEY, (4, 7, 6))
    for cls in (LocallyConnected, LocallyConnected2d):
        layer = cls.from_conv(conv, (7, 6))
        assert type(layer) is cls
        near(layer(x), conv(x))
        back = layer.to_conv()
        assert type(back) is eqx.nn.Conv2d
        near(back(x), conv(x))
    with pytest.raises(ArgumentTypeError, match=r"equinox\.nn\.Conv3d"):
        LocallyConnected3d.from_conv(conv, (7, 6))


EQUINOX_TRANSPOSED = {
    "plain": {},
    "output padding": {"stride": 2, "padding": 1, "output_padding": 1},
    "same": {"padding": "SAME", "stride": 2},
    "gaps": {"padding": "SAME", "stride": 4},
    "lower": {"padding": "SAME_LOWER", "stride": 2},
    "groups": {"padding": ((1, 2), (0, 1)), "groups": 2, "stride": 2},
    "no bias": {"use_bias": False, "dilation": 2},
}


@pytest.mark.parametrize("name", few(EQUINOX_TRANSPOSED, "groups"))
def test_equinox_transposed_is_as_its_convolution(name):
    eqx = pytest.importorskip("equinox")
    from lcmulti_jax.equinox import LocallyConnectedTranspose, LocallyConnectedTranspose2d

    options = EQUINOX_TRANSPOSED[name]
    conv = eqx.nn.ConvTranspose2d(4, 6, 3, key=KEY, **options)
    x = jax.random.normal(KEY, (4, 5, 4))
    layer = LocallyConnectedTranspose2d.from_conv(conv, (5, 4))
    near(layer(x), conv(x))
    near(layer.to_conv()(x), conv(x))
    low = LocallyConnectedTranspose(2, 4, 6, 3, (5, 4), key=KEY, rank=2, **options)
    assert low(x).shape == conv(x).shape
    drawn = LocallyConnectedTranspose2d(4, 6, 3, (5, 4), key=KEY, **options)
    limit = jnp.abs(conv.weight).max()
    assert 0.9 * limit < jnp.abs(drawn.weight).max() < 1.1 * limit
    assert (drawn.in_channels, drawn.out_channels, drawn.input_size) == (4, 6, (5, 4))
    assert drawn.stride == conv.stride
    gradient = eqx.filter_grad(lambda layer: jax.vmap(layer)(x[None]).sum())(drawn)
    assert gradient.weight.shape == drawn.weight.shape


@pytest.mark.parametrize("mode", few(["ema", "batch"], "batch"))
def test_equinox_fuses_a_batch_normalisation(mode):
    eqx = pytest.importorskip("equinox")
    from lcmulti_jax.equinox import LocallyConnected2d, LocallyConnectedTranspose2d, fuse_bn

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        modes = "mode" in inspect.signature(eqx.nn.BatchNorm).parameters  # since Equinox 0.13
        given = {"mode": mode} if modes else {}
        bn, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(6, "batch", **given)
    numbers = (jnp.arange(1.0, 7), jnp.arange(6.0))
    bn = eqx.tree_at(lambda bn: (bn.weight, bn.bias), bn, numbers)

    def normalise(bn, x, state):
        return jax.vmap(bn, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)

    _, state = normalise(bn, 3 * jax.random.normal(KEY, (8, 6, 3, 3)) + 1, state)
    x = jax.random.normal(KEY, (2, 4, 6, 5))
    for layer in (
        LocallyConnected2d(4, 6, 3, (6, 5), groups=2, key=KEY),
        LocallyConnected2d(4, 6, 3, (6, 5), rank=2, use_bias=False, key=KEY),
        LocallyConnectedTranspose2d(4, 6, 3, (6, 5), stride=2, groups=2, key=KEY),
    ):
        wanted, _ = normalise(eqx.nn.inference_mode(bn), jax.vmap(layer)(x), state)
        near(jax.vmap(fuse_bn(layer, bn, state))(x), wanted)

    class Own(LocallyConnected2d):
        def __call__(self, x, *, key=None):
            return jax.nn.relu(super().__call__(x, key=key))

    with pytest.raises(ArgumentError, match="which computes something of its own"):
        fuse_bn(Own(4, 6, 3, (6, 5), key=KEY), bn, state)


@pytest.mark.parametrize(
    ("module", "extra", "package"),
    [
        ("nnx", "flax", "jax"),
        ("nnx", "flax", "flax"),
        ("equinox", "equinox", "jax"),
        ("equinox", "equinox", "equinox"),
        ("sharded", "jax", "jax"),
    ],
)
def test_what_to_install_is_said(module, extra, package):
    script = f"""
import sys
sys.modules[{package!r}] = None
from lcmulti.errors import MissingExtraError
try:
    from lcmulti_jax import {module}
except MissingExtraError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert f"pip install 'lcmulti[{extra}]'" in run.stdout, run.stdout + run.stderr
