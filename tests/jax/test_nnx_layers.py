"""Layers for Flax NNX: values, initial weights, dtypes, shards, training and errors."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("jax")
pytest.importorskip("flax")

import jax
import jax.numpy as jnp
from flax import nnx
from helpers_jax import require_errors
from helpers_variables import SPEC, check_variables, drawn
from jax_releases import automatic_mesh
from lcmulti_jax import base
from lcmulti_jax.nnx import LocallyConnected, LocallyConnectedTranspose
from lcmulti_jax.nnx_compat import put

import lcmulti
from lcmulti.errors import ArgumentError, ShapeError

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
        pytest.skip("no window sees some of the input")
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


def test_bad_input_and_arguments():
    require_errors(
        lambda **a: LocallyConnected(
            3, 4, (3, 3), rngs=nnx.Rngs(0), **({"input_size": (6, 6)} | a)
        ),
        (3, 7, 3),
    )  # fmt: skip


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


def test_shared_axes_and_share():
    layer = LocallyConnected(3, 4, (3, 3), (6, 6), shared_axes=(1,), rngs=nnx.Rngs(0))
    assert layer.kernel.shape == (6, 1, 3, 3, 3, 4)
    before = layer.kernel[...]
    layer.share_()
    close(layer.kernel[...], jnp.broadcast_to(before.mean(0), before.shape))


@pytest.mark.parametrize("kind", ["Param", "Variable", "BatchStat", "state", "hijax"])
def test_operations_take_variables(kind, tmp_path):
    def variable(array):
        if kind == "state":  # what `nnx.split` and `nnx.state` give
            return nnx.state(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), nnx.Param)["kernel"].replace(
                jnp.asarray(array)
            )
        if kind == "hijax":
            try:
                return nnx.Param(jnp.asarray(array), hijax=True)
            except TypeError:
                pytest.skip("this release has no such variables")
        return getattr(nnx, kind)(jnp.asarray(array))

    check_variables(variable, jnp.asarray, np.asarray, tmp_path / "weights.safetensors")


def test_gradients_and_compilation_of_variables():
    layer = LocallyConnected(3, 4, (2, 3), (4, 5), padding="VALID", rngs=nnx.Rngs(0))

    def penalty(layer):
        return lcmulti.smoothness(layer.kernel, layer.spec) + jnp.sum(
            lcmulti.local_conv(drawn(["x"])[0], layer.kernel, layer.bias)
        )

    def of_arrays(kernel):
        y = lcmulti.local_conv(drawn(["x"])[0], kernel, layer.bias[...])
        return lcmulti.smoothness(kernel, SPEC) + y.sum()

    expected = jax.grad(of_arrays)(layer.kernel[...])
    for wrap in (nnx.grad(penalty), nnx.jit(nnx.grad(penalty))):
        (found,) = jax.tree.leaves(wrap(layer)["kernel"])  # Flax 0.10's has no [...]
        close(found, expected)
