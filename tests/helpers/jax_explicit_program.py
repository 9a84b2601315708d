"""Divide the batch on a mesh of explicit axes, as `jax.make_mesh` makes it; print the errors.

Values, placements and collectives are compared with those of the same function on one device. The
arguments name the cases.
"""

import json
import sys
import traceback

import jax
from jax_releases import cpu_devices

cpu_devices(4)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from helpers_collectives import collectives  # noqa: E402
from jax.sharding import AxisType, PartitionSpec  # noqa: E402

import lcmulti  # noqa: E402

MESH = jax.make_mesh((4,), ("data",), (AxisType.Explicit,))
X = np.random.default_rng(0).standard_normal((8, 4, 8, 8)).astype("float32")


def plain(**arguments):
    implementation = arguments.pop("implementation", "auto")
    spec = lcmulti.LocalConvSpec((4, 8, 8), 8, 3, data_format="channels_first", **arguments)
    kernel, bias = map(jnp.asarray, lcmulti.initial_weights(spec, seed=0))
    names = ("strides", "padding", "padding_mode", "groups")
    given = {name: value for name, value in arguments.items() if name in names}

    def apply(weights, x):
        return lcmulti.local_conv(
            x, *weights, **given, data_format="channels_first", implementation=implementation
        )

    return apply, (kernel, bias)


def nnx():
    from flax import nnx
    from lcmulti_jax.nnx import LocallyConnected

    layer = LocallyConnected(4, 8, (3, 3), (8, 8), rngs=nnx.Rngs(0))
    graph, weights = nnx.split(layer)
    return (lambda weights, x: nnx.merge(graph, weights)(jnp.moveaxis(x, 1, -1))), weights


def equinox():
    import equinox as eqx
    from lcmulti_jax.equinox import LocallyConnected2d

    layer = LocallyConnected2d(4, 8, 3, 8, key=jax.random.key(0))
    weights, rest = eqx.partition(layer, eqx.is_array)
    return (lambda weights, x: jax.vmap(eqx.combine(weights, rest))(x)), weights


CASES = {
    "plain": plain,
    "reflected": lambda: plain(padding=1, padding_mode="reflect"),
    "strided": lambda: plain(strides=2, padding="same"),
    "groups": lambda: plain(groups=2),
    "shared": lambda: plain(shared_axes=(0,)),
    "composed": lambda: plain(implementation="composed"),
    "blocked": lambda: plain(implementation="blocked"),
    "nnx": nnx,
    "equinox": equinox,
}


def check(name):
    apply, weights = CASES[name]()
    step = jax.jit(jax.value_and_grad(lambda w, x: jnp.square(apply(w, x)).mean(), (0, 1)))
    wanted = jax.tree.leaves(step(weights, X))
    with jax.set_mesh(MESH):
        x = jax.device_put(X, PartitionSpec("data"))
        found = step(weights, x)
        moved = collectives(step.lower(weights, x).compile())
    for ours, theirs in zip(jax.tree.leaves(found), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert found[1][1].sharding.spec[0] == "data", found[1][1].sharding
    assert {each.kind for each in moved} == {"all-reduce"}, moved


def refused():
    apply, (kernel, bias) = plain()
    with jax.set_mesh(MESH):
        kernel = jax.device_put(kernel, PartitionSpec(*(None,) * 5, "data"))
        try:
            jax.jit(apply)((kernel, bias), X)
        except lcmulti.LcmultiError as error:
            assert "auto_axes" in str(error)
        else:
            raise AssertionError("a divided kernel was taken")


def main():
    errors = {}
    for name in sys.argv[1:]:
        try:
            check(name) if name in CASES else refused()
            errors[name] = None
        except Exception:
            errors[name] = traceback.format_exc()[-3000:]
    print(json.dumps(errors))


if __name__ == "__main__":
    main()
