"""`untie` in Flax NNX and Equinox, of modules that share, compute, stack or read their weights."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("flax.nnx")
import jax.numpy as jnp  # noqa: E402

from lcmulti.errors import ArgumentError  # noqa: E402

CLOSE = dict(rtol=1e-4, atol=1e-5)
X = np.random.default_rng(0).standard_normal((2, 8, 7, 2)).astype("float32")


def test_nnx_names_in_any_order_and_named_tuples():
    """A module that has two names is one layer, and named tuples stay what they are."""
    from typing import NamedTuple

    from flax import nnx
    from lcmulti_jax.nnx import LocallyConnected, retie, untie

    class Sizes(NamedTuple):
        window: int
        name: str

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.sizes = Sizes(3, "three")
            self.main = nnx.Conv(2, 2, (3, 3), rngs=rngs)
            self.again = self.main  # Flax orders attributes by the alphabet in a copy

        def __call__(self, x):
            return self.again(self.main(x))

    net = Net(nnx.Rngs(0))
    untied = untie(net, X, tell=None)
    assert isinstance(untied.main, LocallyConnected) and untied.again is untied.main
    assert untied.sizes == Sizes(3, "three") and type(untied.sizes) is Sizes
    np.testing.assert_allclose(untied(X), net(X), **CLOSE)
    assert [row.name for row in untie(net, X, dry_run=True).rows] == ["main"]
    np.testing.assert_allclose(retie(untied)(X), net(X), **CLOSE)


def test_nnx_two_sizes():
    from flax import nnx
    from lcmulti_jax.nnx import untie

    class Twice(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(2, 2, (3, 3), padding="VALID", rngs=rngs)

        def __call__(self, x):
            return self.conv(self.conv(x))

    with pytest.raises(ArgumentError, match=r"'conv', which is called on \(6, 5\) and \(8, 7\)"):
        untie(Twice(nnx.Rngs(0)), X)


def test_nnx_weights_that_others_share_or_read():
    from flax import nnx
    from lcmulti_jax.nnx import retie, untie

    class Net(nnx.Module):
        def __init__(self, stride=1, read=False):
            self.a = nnx.Conv(2, 2, (3, 3), rngs=nnx.Rngs(0))
            self.b = nnx.Conv(2, 2, (3, 3), stride, rngs=nnx.Rngs(1))
            self.b.kernel = self.a.kernel
            self.read, self.last = read, nnx.Conv(2, self.a.out_features, (1, 1), rngs=nnx.Rngs(2))

        def __call__(self, x):
            y = self.last(self.b(self.a(x))) * self.a.out_features
            return y + self.last.kernel[...].sum() if self.read else y

    for rank in (None, 2):
        untied = untie(Net(), X, tell=None, rank=rank)
        np.testing.assert_allclose(untied(X), Net()(X), **CLOSE)
        name = "kernel" if rank is None else "basis"
        assert getattr(untied.a, name) is getattr(untied.b, name)
        assert untied.a.bias is not untied.b.bias
        tied = retie(untied)
        assert tied.a.kernel is tied.b.kernel and tied.a.bias is not tied.b.bias
    with pytest.raises(ArgumentError, match="'a', whose kernel is that of 'b' too"):
        untie(Net(stride=2), X, tell=None)
    with pytest.raises(ArgumentError, match="'a', whose kernel is that of 'b' too"):
        untie(Net(), X, where="a", tell=None)
    plan = untie(Net(read=True), X, dry_run=True)
    assert plan.left == (("last", "its weights are read elsewhere, too"),)


def test_nnx_arguments_that_a_network_branches_on():
    from flax import nnx
    from lcmulti_jax.nnx import untie

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(2, 2, (3, 3), rngs=rngs)

        def __call__(self, x, train=False, steps=1):
            for _ in range(steps):
                x = self.conv(x)
            return -x if train else x

    net = Net(nnx.Rngs(0))
    for example in ((X, True, 2), {"x": X, "train": True, "steps": 2}):
        untied = untie(net, example, tell=None)
        np.testing.assert_allclose(untied(X, True, 2), net(X, True, 2), **CLOSE)


def test_stacked_weights_stay():
    from flax import nnx
    from lcmulti_jax.nnx import untie

    keys = jax.random.split(jax.random.key(0), 3)
    stack = nnx.vmap(lambda key: nnx.Conv(2, 2, (3, 3), rngs=nnx.Rngs(key)))(keys)

    class Net(nnx.Module):
        def __init__(self):
            self.stack = stack

        def __call__(self, x):
            run = nnx.scan(lambda conv, x: conv(x), in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
            return run(self.stack, x)

    with pytest.raises(ArgumentError, match="stack .its weights are those of several convolutions"):
        untie(Net(), X, tell=None)

    eqx = pytest.importorskip("equinox")
    from lcmulti_jax.equinox import untie as untie_equinox

    class Stack(eqx.Module):
        convs: eqx.nn.Conv2d

        def __call__(self, x):
            arrays, rest = eqx.partition(self.convs, eqx.is_array)
            step = lambda x, each: (eqx.combine(each, rest)(x), None)  # noqa: E731
            return jax.lax.scan(step, x, arrays)[0]

    made = eqx.filter_vmap(lambda key: eqx.nn.Conv2d(2, 2, 3, padding=1, key=key))(keys)
    with pytest.raises(ArgumentError, match="its weights are those of several convolutions"):
        untie_equinox(Stack(made), jnp.asarray(X[0].transpose(2, 0, 1)), tell=None)


@pytest.mark.parametrize("norm", ["WeightNorm", "SpectralNorm"])
def test_nnx_weights_that_are_normalised_stay(norm):
    from flax import nnx
    from lcmulti_jax.nnx import untie

    if not hasattr(nnx, norm):
        pytest.skip("this Flax has no such module")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first = getattr(nnx, norm)(nnx.Conv(2, 3, (3, 3), rngs=rngs), rngs=rngs)
            self.last = nnx.Conv(3, 2, (3, 3), rngs=rngs)

        def __call__(self, x):
            options = {} if norm == "WeightNorm" else {"update_stats": False}
            return self.last(self.first(x, **options))

    net = Net(nnx.Rngs(0))
    plan = untie(net, X, dry_run=True)
    assert [row.name for row in plan.rows] == ["last"]
    assert plan.left == (("first.layer_instance", f"its weights are computed by {norm}"),)
    np.testing.assert_allclose(untie(net, X, tell=None)(X), net(X), **CLOSE)


def test_equinox_weights_that_others_read_stay():
    eqx = pytest.importorskip("equinox")
    from lcmulti_jax.equinox import LocallyConnected, untie

    class Net(eqx.Module):
        shared: eqx.nn.Shared
        normed: eqx.nn.WeightNorm
        last: eqx.nn.Conv2d

        def __init__(self, key):
            a, b = (eqx.nn.Conv2d(2, 2, 3, padding=1, key=each) for each in jax.random.split(key))
            self.shared = eqx.nn.Shared(
                (a, b), lambda two: two[1].weight, lambda two: two[0].weight
            )
            self.normed, self.last = eqx.nn.WeightNorm(a), eqx.nn.Conv2d(2, 3, 1, key=key)

        def __call__(self, x):
            a, b = self.shared()
            return self.last(self.normed(b(a(x)))) / self.last.out_channels

    net, x = Net(jax.random.key(0)), jnp.asarray(X[0].transpose(2, 0, 1))
    plan = untie(net, x, dry_run=True)
    assert [row.name for row in plan.rows] == ["last"] and len(plan.left) == 3
    assert {why for _, why in plan.left} == {"its weights are read elsewhere, too"}
    untied = untie(net, x, tell=None)
    assert isinstance(untied.last, LocallyConnected)
    np.testing.assert_allclose(untied(x), net(x), **CLOSE)
