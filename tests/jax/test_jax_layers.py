"""The layers for Flax NNX and Equinox."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("jax")
pytest.importorskip("flax")
eqx = pytest.importorskip("equinox")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import lcmulti_jax.equinox as for_equinox  # noqa: E402
from flax import nnx  # noqa: E402
from jax_releases import automatic_mesh  # noqa: E402
from lcmulti_jax import base  # noqa: E402
from lcmulti_jax.nnx import LocallyConnected, LocallyConnectedTranspose  # noqa: E402
from lcmulti_jax.nnx_compat import put  # noqa: E402

import lcmulti  # noqa: E402
from lcmulti.errors import ArgumentError, ShapeError  # noqa: E402

pytestmark = [pytest.mark.jax, pytest.mark.sampled]

SIZES = {1: (9,), 2: (8, 7), 3: (5, 4, 6)}
CONVOLUTIONS = [
    dict(padding="SAME"),
    dict(padding="VALID", strides=2),
    dict(padding="CIRCULAR", kernel_dilation=2),
    dict(padding="REFLECT"),
    dict(padding=1, strides=2, feature_group_count=2),
    dict(padding="SAME", use_bias=False, kernel_dilation=2),
]


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("geometry", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_nnx_equals_its_convolution_when_weights_are_shared(ndim, geometry):
    sizes = {k: (v,) * ndim for k, v in geometry.items() if k in ("strides", "kernel_dilation")}
    arguments = geometry | sizes
    conv = nnx.Conv(4, 6, (3,) * ndim, rngs=nnx.Rngs(0), **arguments)
    layer = LocallyConnected(4, 6, (3,) * ndim, SIZES[ndim], rngs=nnx.Rngs(1), **arguments)
    put(layer.kernel, jnp.broadcast_to(conv.kernel[...], layer.kernel.shape))
    if conv.bias is not None:
        put(conv.bias, jnp.arange(6.0))
        put(layer.bias, jnp.broadcast_to(conv.bias[...], layer.bias.shape))
    x = jax.random.normal(jax.random.key(0), (2, 3, *SIZES[ndim], 4))
    close(layer(x), conv(x))  # two batch dimensions
    close(layer(x[0, 0]), conv(x[0, 0]))  # and none


def test_nnx_starts_at_the_scale_of_a_convolution():
    conv = nnx.Conv(8, 32, (5, 5), rngs=nnx.Rngs(0))
    layer = LocallyConnected(8, 32, (5, 5), (8, 8), rngs=nnx.Rngs(0))
    assert float(layer.kernel[...].std()) == pytest.approx(float(conv.kernel[...].std()), rel=0.05)
    flat = np.asarray(layer.kernel[...]).reshape(64, -1)
    correlated = np.corrcoef(flat) - np.eye(64)
    assert abs(correlated).max() < 0.08  # drawn anew at every position
    low = LocallyConnected(8, 32, (5, 5), (8, 8), rank=4, rngs=nnx.Rngs(0))
    ratio = float(low.full_kernel().std() / layer.kernel[...].std())
    assert ratio == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize("some", [1, 4, 9])
def test_weights_are_the_same_however_many_are_drawn_at_once(some, monkeypatch):
    init = nnx.initializers.lecun_normal()

    def drawn():
        def position(key, shape):
            shapes.append(shape)
            return init(key, shape)

        return base.at_every_position(position, jax.random.key(3), (2, 5), (3, 2))

    shapes = []
    at_once = drawn()
    assert len(np.unique(at_once)) == 60
    monkeypatch.setattr(base, "DRAWN_AT_ONCE", some * 6)
    np.testing.assert_array_equal(drawn(), at_once)
    assert set(shapes) == {(3, 2)}


def test_nnx_dtypes_and_train_step():
    layer = LocallyConnected(
        3, 4, (3, 3), (6, 6), dtype=jnp.bfloat16, param_dtype=jnp.float32, rngs=nnx.Rngs(0)
    )
    x = jnp.ones((2, 6, 6, 3))
    assert layer(x).dtype == jnp.bfloat16
    assert layer.kernel.dtype == jnp.float32

    @nnx.jit
    def train(layer, x):
        loss, gradient = nnx.value_and_grad(lambda layer: jnp.square(layer(x)).mean())(layer)
        parameters = nnx.state(layer, nnx.Param)
        nnx.update(layer, jax.tree.map(lambda p, g: p - 0.1 * g, parameters, gradient))
        return loss

    assert float(train(layer, x)) > float(train(layer, x)) > 0


@pytest.mark.parametrize("how", ["initialiser", "metadata"])
def test_nnx_sharding_metadata(how):
    if not hasattr(jax, "set_mesh"):
        pytest.skip("this JAX has no mesh in use")
    mesh = automatic_mesh((1,), ("rows",))
    names = ("rows", None, None, None, None, None)
    arguments = {"kernel_metadata": {"out_sharding": names}}
    if how == "initialiser":
        init = nnx.with_partitioning(nnx.initializers.lecun_normal(), names)
        arguments = {"kernel_init": init}
    with jax.set_mesh(mesh):
        layer = LocallyConnected(3, 4, (3, 3), (6, 6), rngs=nnx.Rngs(0), **arguments)
        assert layer.kernel.get_metadata()["out_sharding"] == names
        assert layer.kernel[...].sharding.spec[0] == "rows"
        assert layer(jnp.ones((2, 6, 6, 3))).shape == (2, 6, 6, 4)


@pytest.mark.parametrize("padding", ["SAME", "VALID", 1])
@pytest.mark.parametrize("strides", [1, 2, 4])
def test_nnx_transposed_is_the_adjoint(padding, strides):
    if padding == 1 and strides == 4:
        pytest.skip("some of the input is seen by no window")
    up = LocallyConnectedTranspose(
        4, 3, (3, 3), (4, 3), strides, padding=padding, use_bias=False, rngs=nnx.Rngs(0)
    )
    size = up.spec.input_size
    if padding == "SAME":
        assert size == (4 * strides, 3 * strides)
    if padding == "VALID":  # as flax.nnx.ConvTranspose
        theirs = nnx.ConvTranspose(4, 3, (3, 3), (strides,) * 2, padding="VALID", rngs=nnx.Rngs(0))
        assert theirs(jnp.ones((1, 4, 3, 4))).shape == (1, *size, 3)
    layer = LocallyConnected(
        3, 4, (3, 3), size, strides, padding=padding, use_bias=False, rngs=nnx.Rngs(1)
    )
    put(layer.kernel, up.kernel[...])
    x = jax.random.normal(jax.random.key(0), (2, *size, 3))
    y = jax.random.normal(jax.random.key(1), (2, 4, 3, 4))
    close((layer(x) * y).sum(), (x * up(y)).sum())


def test_nnx_transposed_with_rank_bias_and_shared_axes():
    layer = LocallyConnectedTranspose(
        4, 3, (3, 3), (4, 3), 2, rank=2, shared_axes=(0,), rngs=nnx.Rngs(0)
    )
    assert layer.coefficients.shape == (1, 3, 2)
    assert layer.bias.shape == (1, 6, 3)
    assert layer(jnp.ones((4, 3, 4))).shape == (8, 6, 3)


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


@pytest.mark.parametrize(
    "make",
    [
        lambda **a: LocallyConnected(
            3, 4, (3, 3), rngs=nnx.Rngs(0), **({"input_size": (6, 6)} | a)
        ),
        lambda **a: for_equinox.LocallyConnected2d(
            3, 4, 3, key=jax.random.key(0), **({"input_size": (6, 6)} | a)
        ),
    ],
    ids=["nnx", "equinox"],
)
def test_bad_input_and_arguments(make):
    with pytest.raises(ShapeError) as caught:
        make()(jnp.ones((3, 7, 3)) if make(rank=None).spec.data_format != "channels_first"
               else jnp.ones((3, 6, 7)))  # fmt: skip
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


@pytest.mark.parametrize(
    ("argument", "value"),
    [("in_features", "3"), ("out_features", 0), ("strides", 0), ("kernel_dilation", 0),
     ("feature_group_count", 2), ("input_size", None)],
)  # fmt: skip
@pytest.mark.parametrize("kind", [LocallyConnected, LocallyConnectedTranspose])
def test_nnx_errors_name_arguments_as_flax_does(kind, argument, value):
    right = dict(in_features=3, out_features=3, kernel_size=(3, 3), input_size=(7, 6))
    with pytest.raises(ArgumentError) as caught:
        kind(**(right | {argument: value}), rngs=nnx.Rngs(0))
    assert caught.value.argument == argument


@pytest.mark.parametrize("argument", ["in_channels", "out_channels", "stride", "groups"])
def test_equinox_errors_name_arguments_as_equinox_does(argument):
    right = dict(in_channels=3, out_channels=3, kernel_size=3, input_size=7)
    with pytest.raises(ArgumentError) as caught:
        for_equinox.LocallyConnected2d(**(right | {argument: 0}), key=jax.random.key(0))
    assert caught.value.argument == argument


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("kind", [LocallyConnected, LocallyConnectedTranspose])
def test_another_input_size_says_how_to_rebuild(kind, rank):
    layer = kind(3, 4, (3, 3), (7, 7), rank=rank, rngs=nnx.Rngs(0))
    for shape in ((2, 9, 8, 3), (9, 8, 3), (2, 2, 9, 8, 3)):
        with pytest.raises(ShapeError) as caught:
            layer(jnp.ones(shape))
        assert str(caught.value) == (
            "inputs: expected samples of shape (7, 7, 3), which the weights were made for, "
            "got (9, 8, 3); for these build a layer with in_features=3, input_size=(9, 8)"
        )
    with pytest.raises(ShapeError, match=r"it takes \(\*batch, \*input_size, in_features\)"):
        layer(jnp.ones((7, 7)))
    other = kind(3, 4, (3, 3), (6, 6), rank=rank, rngs=nnx.Rngs(0))
    nnx.update(layer, nnx.state(other))
    with pytest.raises(ShapeError, match=r"\(7, 7\).*got \(6, 6\)"):
        layer(jnp.ones((7, 7, 3)))


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


def test_shared_axes_and_share():
    layer = LocallyConnected(3, 4, (3, 3), (6, 6), shared_axes=(1,), rngs=nnx.Rngs(0))
    assert layer.kernel.shape == (6, 1, 3, 3, 3, 4)
    before = layer.kernel[...]
    layer.share_()
    close(layer.kernel[...], jnp.broadcast_to(before.mean(0), before.shape))
