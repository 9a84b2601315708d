"""Check Flax NNX, Equinox, Keras and Orbax on four CPU devices; print the errors as JSON."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import jax
from jax_releases import automatic_mesh, cpu_devices

cpu_devices(4)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from helpers_collectives import collectives  # noqa: E402
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: E402

MESH = automatic_mesh((2, 2), ("rows", "data"))
X = np.random.default_rng(0).standard_normal((4, 8, 6, 3)).astype("float32")


def spread(*names):
    return NamedSharding(MESH, PartitionSpec(*names))


def check_program(program, kernel, halos):
    """Require that no kernel is sent, and that inputs are sent only at borders."""
    found = collectives(program)
    shapes = [each.shape for each in found if each.kind in ("all-gather", "all-to-all")]
    assert not [shape for shape in shapes if len(shape) >= kernel.ndim], found
    halo = 8 * 6 * 3 * 4  # a row to each side, of all samples
    moved = sum(each.bytes for each in found if each.kind == "collective-permute")
    assert moved <= 2 * halos * halo * X.shape[0], found


def train(layer_loss, parameters, x):
    return jax.jit(jax.value_and_grad(layer_loss)).lower(parameters, x).compile()


def nnx():
    """`out_sharding` of a parameter divides rows over two devices; the batch has the other two."""
    from flax import nnx
    from lcmulti_jax.nnx import LocallyConnected

    def make(**metadata):
        return LocallyConnected(3, 4, (3, 3), (8, 6), rngs=nnx.Rngs(0), **metadata)

    rows = ("rows", None, None, None, None, None)
    with jax.set_mesh(MESH):
        layer = make(
            kernel_metadata={"out_sharding": rows}, bias_metadata={"out_sharding": rows[:3]}
        )
    plain = make()
    assert layer.kernel[...].sharding.spec[0] == "rows"
    np.testing.assert_array_equal(layer.kernel[...], plain.kernel[...])
    graph, parameters = nnx.split(layer)

    def loss(parameters, x):
        return jnp.square(nnx.merge(graph, parameters)(x)).mean()

    x = jax.device_put(X, spread("data", "rows"))
    program = train(loss, parameters, x)
    value, gradient = program(parameters, x)
    wanted, theirs = nnx.value_and_grad(lambda layer, x: jnp.square(layer(x)).mean())(plain, X)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    ours = gradient["kernel"][...]
    np.testing.assert_allclose(ours, theirs["kernel"][...], rtol=1e-4, atol=1e-6)
    assert ours.sharding.is_equivalent_to(layer.kernel[...].sharding, 6), ours.sharding
    check_program(program, ours, halos=2)


def equinox():
    """`equinox.filter_shard` puts a layer on devices by a tree of shardings."""
    import equinox as eqx
    from lcmulti_jax.equinox import LocallyConnected2d

    plain = LocallyConnected2d(3, 4, 3, (8, 6), padding=1, key=jax.random.key(0))
    layer = eqx.filter_shard(plain, spread("rows"))
    assert layer.weight.sharding.spec[0] == "rows"
    parameters, static = eqx.partition(layer, eqx.is_array)

    def loss(parameters, x):
        return jnp.square(jax.vmap(eqx.combine(parameters, static))(x)).mean()

    images = np.moveaxis(X, -1, 1)
    x = jax.device_put(images, spread("data", None, "rows"))
    program = train(loss, parameters, x)
    value, gradient = program(parameters, x)
    wanted, theirs = jax.value_and_grad(loss)(eqx.partition(plain, eqx.is_array)[0], images)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    np.testing.assert_allclose(gradient.weight, theirs.weight, rtol=1e-4, atol=1e-6)
    assert gradient.weight.sharding.is_equivalent_to(layer.weight.sharding, 6)
    check_program(program, gradient.weight, halos=2)


def keras():
    """A `LayoutMap` of `keras.distribution` divides rows, and the mesh's other axis the batch."""
    import keras
    from lcmulti_keras import LocallyConnected2D

    def model():
        keras.utils.set_random_seed(0)
        layers = [keras.Input((8, 6, 3)), LocallyConnected2D(4, 3, padding="same", name="local")]
        made = keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(2)])
        made.compile("sgd", "mse")
        return made

    y = np.zeros((4, 2), "float32")
    plain = model()
    start = plain.get_weights()
    plain.fit(X, y, batch_size=4, epochs=2, verbose=0)

    mesh = keras.distribution.DeviceMesh(
        (2, 2), ("rows", "data"), keras.distribution.list_devices()
    )
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*local/kernel"] = ("rows", None, None, None, None, None)
    layout[".*local/bias"] = ("rows", None, None)
    distribution = keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="data")
    with distribution.scope():
        made = model()
        made.set_weights(start)
        made.fit(X, y, batch_size=4, epochs=2, verbose=0)
    kernel = made.get_layer("local").kernel
    assert kernel.value.sharding.spec[0] == "rows", kernel.value.sharding
    for ours, theirs in zip(made.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    variables = [v.value for v in made.trainable_variables]

    def loss(variables, x):
        outputs, _ = made.stateless_call(variables, [], x)
        return jnp.square(outputs).mean()

    x = jax.device_put(X, NamedSharding(kernel.value.sharding.mesh, PartitionSpec("data")))
    program = train(loss, variables, x)
    check_program(program, kernel.value, halos=2)
    gradients = program(variables, x)[1]
    assert gradients[0].sharding.is_equivalent_to(kernel.value.sharding, 6), gradients[0].sharding


def ensemble():
    """`jax.vmap` over kernels computes an ensemble's layers, each on a device of its own."""
    import lcmulti

    kernels = np.random.default_rng(1).standard_normal((4, 8, 6, 3, 3, 3, 4)).astype("float32")
    mesh = automatic_mesh((4,), ("members",))
    run = jax.vmap(lambda k, x: lcmulti.local_conv(x, k, padding="same"), (0, None))
    placed = jax.device_put(kernels, NamedSharding(mesh, PartitionSpec("members")))
    program = jax.jit(run).lower(placed, jnp.asarray(X)).compile()
    np.testing.assert_allclose(program(placed, X), run(kernels, X), rtol=1e-4, atol=1e-4)
    gathered = [each for each in collectives(program) if len(each.shape) >= 6]
    assert not gathered, gathered


def orbax():
    """Checkpoints written on four devices are read on two and three; none divide the rows."""
    import lcmulti_jax
    import orbax.checkpoint as ocp

    import lcmulti

    spec = lcmulti.LocalConvSpec((11, 6, 3), 4, 3, padding=1, data_format="channels_last")
    x = np.random.default_rng(2).standard_normal((2, 11, 6, 3)).astype("float32")

    def over(count):
        return lcmulti_jax.sharded(spec, Mesh(np.array(jax.devices()[:count]), ("rows",)), "rows")

    four = over(4)
    weights = dict(zip(("kernel", "bias"), four.init(jax.random.key(0)), strict=True))
    wanted = four(x, **weights)
    with tempfile.TemporaryDirectory() as folder, ocp.StandardCheckpointer() as checkpoints:
        path = Path(folder, "weights")
        checkpoints.save(path, weights)
        checkpoints.wait_until_finished()
        for count in (2, 3):
            layer = over(count)
            places = {"kernel": layer.kernel_sharding, "bias": layer.bias_sharding}
            shapes = {"kernel": layer.kernel_shape, "bias": layer.bias_shape}
            found = checkpoints.restore(path, {
                name: jax.ShapeDtypeStruct(shapes[name], jnp.float32, sharding=place)
                for name, place in places.items()
            })  # fmt: skip
            assert found["kernel"].sharding == layer.kernel_sharding, found["kernel"].sharding
            np.testing.assert_array_equal(layer(x, **found), wanted)


CHECKS = {each.__name__: each for each in (nnx, equinox, keras, ensemble, orbax)}


def main():
    found = {}
    for name in sys.argv[1:]:
        started = time.monotonic()
        try:
            CHECKS[name]()
            found[name] = None
        except Exception:
            found[name] = traceback.format_exc()[-3000:]
        print(f"{time.monotonic() - started:6.2f} s  {name}", file=sys.stderr, flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
