"""`untie` and `retie` in Flax NNX and Equinox keep outputs and leave the given model as it was."""

import inspect

import numpy as np
import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402

from lcmulti.errors import ArgumentError, ArgumentTypeError, TooLargeError  # noqa: E402

CLOSE = dict(rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def net():
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.a = nnx.Conv(2, 4, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.layers = getattr(nnx, "List", list)([
                nnx.Conv(4, 4, (3, 3), padding="VALID", feature_group_count=2, rngs=rngs),
                nnx.Conv(4, 4, (1, 1), strides=2, padding="CIRCULAR", rngs=rngs),
            ])  # fmt: skip
            self.up = nnx.ConvTranspose(4, 3, (3, 3), strides=(2, 2), rngs=rngs)
            self.wide = nnx.ConvTranspose(
                3, 3, (3, 2), padding="VALID", transpose_kernel=True, rngs=rngs
            )
            self.last = nnx.Sequential(
                nnx.Conv(3, 3, (3, 3), padding=((1, 0), (0, 2)), use_bias=False, rngs=rngs),
                nnx.Dropout(0.5, rngs=rngs),
            )
            self.again = self.a

        def __call__(self, x):
            x = nnx.relu(self.norm(self.a(x)))
            for layer in self.layers:
                x = layer(x)
            return self.last(self.wide(self.up(x)))

    return Net(nnx.Rngs(0))


X = np.random.default_rng(0).standard_normal((2, 8, 7, 2)).astype("float32")


def run(model, x=X):
    from flax import nnx

    def call(model, x):
        return model(x)

    model.eval()
    return np.asarray(nnx.jit(call)(model, x))


@pytest.mark.slow
def test_nnx(net):
    from flax import nnx
    from lcmulti_jax.nnx import LocallyConnected, LocallyConnectedTranspose, retie, untie

    net.train()
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(net, nnx.Not(nnx.RngKey))))
    untied = untie(net, X, tell=None)
    after = nnx.to_pure_dict(nnx.state(net, nnx.Not(nnx.RngKey)))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert not net.norm.use_running_average and not untied.norm.use_running_average
    assert isinstance(untied.a, LocallyConnected) and untied.again is untied.a
    assert isinstance(untied.up, LocallyConnectedTranspose)
    assert isinstance(untied.layers[1], LocallyConnected) and type(net.a) is nnx.Conv
    assert untied.layers[0].spec.groups == 2
    expected = run(net)
    np.testing.assert_allclose(run(untied), expected, **CLOSE)
    back = retie(untied)
    assert type(back.layers[1]) is nnx.Conv and type(back.up) is nnx.ConvTranspose
    np.testing.assert_allclose(run(back), expected, **CLOSE)


@pytest.mark.slow
def test_nnx_low_rank_and_shared(net):
    from lcmulti_jax.nnx import untie

    for options in (dict(rank=2), dict(shared_axes=(0,))):
        np.testing.assert_allclose(run(untie(net, X, tell=None, **options)), run(net), **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("kind, shape", [("ResNet18", (2, 32, 32, 3)), ("UNet", (2, 12, 8, 1))])
def test_whole_networks_of_nnx(kind, shape):
    nnx = pytest.importorskip("flax.nnx")
    import helpers_nnx_networks
    from lcmulti_jax.nnx import LocallyConnected, retie, untie

    model = getattr(helpers_nnx_networks, kind)(4, nnx.Rngs(0))
    x = np.random.default_rng(1).standard_normal(shape).astype("float32")
    untied = untie(model, x, tell=None)
    convolutions = (nnx.Conv, nnx.ConvTranspose)
    assert not any(isinstance(each, convolutions) for _, each in nnx.iter_modules(untied))
    assert isinstance(untied.out if kind == "UNet" else untied.conv1, LocallyConnected)
    expected = run(model, x)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(run(untied, x), expected, **CLOSE)
    back = retie(untied)
    np.testing.assert_allclose(run(back, x), expected, **CLOSE)
    if kind == "ResNet18":
        np.testing.assert_array_equal(back.conv1.kernel[...], model.conv1.kernel[...])


def test_nnx_tells_chooses_and_refuses(net, capsys):
    from flax import nnx
    from lcmulti_jax.nnx import LocallyConnected, retie, untie
    from lcmulti_jax.nnx_compat import put

    plan = untie(net, X, dry_run=True)
    names = ["a", "layers.0", "layers.1", "up", "wide", "last.layers.0"]
    assert sorted(row.name for row in plan.rows) == sorted(names)
    assert capsys.readouterr().out == ""
    chosen = untie(net, X, where="layers.*")
    assert capsys.readouterr().out.startswith("layer ")
    assert type(chosen.a) is nnx.Conv and isinstance(chosen.layers[0], LocallyConnected)
    row = next(row for row in plan.rows if row.name == "layers.0")
    assert row.after == chosen.layers[0].kernel.size + chosen.layers[0].bias.size
    with pytest.raises(TooLargeError, match="10 B, the limit"):
        untie(net, X, memory=10)
    with pytest.raises(ArgumentError, match="where: "):
        untie(net, X, where="z")
    with pytest.raises(ArgumentTypeError, match="model: "):
        untie(3, X)
    with pytest.raises(ArgumentError, match="locally connected layers"):
        retie(net)
    layer = chosen.layers[0]
    ramp = jnp.arange(layer.kernel.size).reshape(layer.kernel.shape)
    put(layer.kernel, layer.kernel[...] + ramp)
    with pytest.raises(ArgumentError, match=r"layers.0.kernel: .*differ by up to"):
        retie(chosen)
    assert retie(chosen, tolerance=None).layers[0].kernel.shape == (3, 3, 2, 4)


@pytest.mark.slow
def test_equinox():
    eqx = pytest.importorskip("equinox")
    from lcmulti_jax.equinox import LocallyConnected, retie, untie

    keys = jax.random.split(jax.random.key(0), 4)
    model = eqx.nn.Sequential([
        eqx.nn.Conv2d(2, 4, 3, padding=1, padding_mode="REFLECT", key=keys[0]),
        eqx.nn.Lambda(jax.nn.relu),
        eqx.nn.Conv2d(4, 6, (3, 2), stride=2, groups=2, use_bias=False, key=keys[1]),
        eqx.nn.ConvTranspose2d(6, 3, 2, 2, key=keys[2]),
    ])  # fmt: skip
    x = jnp.asarray(X[0].transpose(2, 0, 1))
    plan = untie(
        model, x, dry_run=True, where=lambda name, conv: "Transpose" not in str(type(conv))
    )
    assert [row.name for row in plan.rows] == ["layers.0", "layers.2"]
    expected = eqx.filter_jit(model)(x)
    for options in (dict(), dict(rank=2)):
        untied = untie(model, x, tell=None, **options)
        assert isinstance(untied.layers[0], LocallyConnected)
        assert isinstance(model.layers[0], eqx.nn.Conv2d)
        np.testing.assert_allclose(eqx.filter_jit(untied)(x), expected, **CLOSE)
    back = retie(untied, tolerance=1e-6)
    assert isinstance(back.layers[2], eqx.nn.Conv) and back.layers[2].weight.ndim == 4
    np.testing.assert_allclose(eqx.filter_jit(back)(x), expected, **CLOSE)
    with pytest.raises(TooLargeError, match="the limit"):
        untie(model, x, memory=10)
    with pytest.raises(ArgumentError, match="where: "):
        untie(model, x, where="layers.1")


@pytest.mark.parametrize("strength", [1.0, 0.25])
def test_share_every_in_optax(strength):
    eqx, optax = pytest.importorskip("equinox"), pytest.importorskip("optax")
    from lcmulti_jax.equinox import LocallyConnected2d
    from lcmulti_jax.sharing import ShareEvery

    key = jax.random.key(0)
    model = eqx.nn.Sequential([
        LocallyConnected2d(2, 3, 3, (4, 5), key=key), eqx.nn.Linear(2, 2, key=key)
    ])  # fmt: skip
    params = eqx.filter(model, eqx.is_array)
    optimizer = optax.chain(optax.sgd(0.1), ShareEvery(model, 2, strength=strength))
    state = optimizer.init(params)
    gradients = jax.tree.map(jnp.ones_like, params)
    step = jax.jit(optimizer.update)
    updates, state = step(gradients, state, params)
    np.testing.assert_allclose(updates.layers[0].weight, -0.1, rtol=1e-6)
    updates, state = step(gradients, state, params)
    old = params.layers[0].weight - 0.1
    new = old + strength * (old.mean((0, 1), keepdims=True) - old)
    np.testing.assert_allclose(params.layers[0].weight + updates.layers[0].weight, new, atol=1e-6)
    np.testing.assert_allclose(updates.layers[1].weight, -0.1, rtol=1e-6)
    with pytest.raises(ArgumentError, match="locally connected"):
        ShareEvery(eqx.nn.Linear(2, 2, key=key), 2)


def test_share_every_of_nnx():
    nnx, optax = pytest.importorskip("flax.nnx"), pytest.importorskip("optax")
    from lcmulti_jax.nnx import LocallyConnected
    from lcmulti_jax.sharing import ShareEvery

    model = nnx.Sequential(LocallyConnected(2, 3, (3, 3), (4, 5), rngs=nnx.Rngs(0)))
    optimizer = nnx.Optimizer(
        model, optax.chain(optax.sgd(0.1), ShareEvery(model, 1)), wrt=nnx.Param
    )
    keeps_model = "model" not in inspect.signature(optimizer.update).parameters  # before Flax 0.11
    zeros = jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param))
    optimizer.update(*(() if keeps_model else (model,)), zeros)
    kernel = np.asarray(model.layers[0].kernel[...])
    assert np.ptp(kernel, (0, 1)).max() < 1e-6 and np.ptp(kernel) > 0.1


def test_share_every_of_a_layer_with_two_names():
    nnx, _ = pytest.importorskip("flax.nnx"), pytest.importorskip("optax")
    from lcmulti_jax.nnx import LocallyConnected
    from lcmulti_jax.sharing import ShareEvery

    class Net(nnx.Module):
        def __init__(self):
            self.main = LocallyConnected(2, 2, (3, 3), (4, 5), rngs=nnx.Rngs(0))
            self.again = self.main

    model = Net()
    params = nnx.state(model, nnx.Param)
    sharing, zeros = ShareEvery(model, 1), jax.tree.map(jnp.zeros_like, params)
    updates, _ = sharing.update(zeros, sharing.init(params), params)
    assert max(float(jnp.abs(each).max()) for each in jax.tree.leaves(updates)) > 0.1
