"""One training step of a stack like DeepFace's three locally connected layers, in one framework.

    python examples/deepface.py torch|nnx|equinox|tensorflow

Taigman, Yang, Ranzato and Wolf, "DeepFace" (CVPR 2014), section 3: 63x63x16 with a 9x9 window,
55x55x16 with 7x7 and stride 2, 25x25x16 with 5x5.
"""

import argparse
import time

SIZE, CHANNELS, BATCH = 63, 16, 4
STACK = ((9, 1), (7, 2), (5, 1))  # window, stride


def sizes():
    """Input size, window and stride of each layer."""
    size = SIZE
    for window, stride in STACK:
        yield size, window, stride
        size = (size - window) // stride + 1


def in_torch():
    import torch
    from lcmulti_torch import LocallyConnected2d

    model = torch.nn.Sequential()
    for size, window, stride in sizes():
        model.append(LocallyConnected2d(CHANNELS, CHANNELS, window, size, stride))
        model.append(torch.nn.ReLU())
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    x = torch.randn(BATCH, CHANNELS, SIZE, SIZE)

    def step():
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def in_nnx():
    import jax
    import jax.numpy as jnp
    from flax import nnx
    from lcmulti_jax.nnx import LocallyConnected

    layers = []
    for size, window, stride in sizes():
        rngs = nnx.Rngs(len(layers))
        layer = LocallyConnected(
            CHANNELS, CHANNELS, (window,) * 2, (size,) * 2, stride, padding="VALID", rngs=rngs
        )
        layers += [layer, nnx.relu]
    model = nnx.Sequential(*layers)
    x = jax.random.normal(jax.random.key(0), (BATCH, SIZE, SIZE, CHANNELS))

    @nnx.jit
    def train(model, x):
        loss, gradient = nnx.value_and_grad(lambda model: jnp.square(model(x)).mean())(model)
        parameters = nnx.state(model, nnx.Param)
        nnx.update(model, jax.tree.map(lambda p, g: p - 1e-3 * g, parameters, gradient))
        return loss

    return lambda: float(train(model, x))


def in_equinox():
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    from lcmulti_jax.equinox import LocallyConnected2d

    keys = jax.random.split(jax.random.key(0), len(STACK) + 1)
    layers = [
        LocallyConnected2d(CHANNELS, CHANNELS, window, size, stride, key=key)
        for key, (size, window, stride) in zip(keys, sizes(), strict=False)
    ]
    x = jax.random.normal(keys[-1], (BATCH, CHANNELS, SIZE, SIZE))

    def run(layers, sample):
        for layer in layers:
            sample = jax.nn.relu(layer(sample))
        return sample

    @eqx.filter_jit
    def train(layers, x):
        def loss(layers):
            return jnp.square(jax.vmap(run, in_axes=(None, 0))(layers, x)).mean()

        value, gradient = eqx.filter_value_and_grad(loss)(layers)
        return value, eqx.apply_updates(layers, jax.tree.map(lambda g: -1e-3 * g, gradient))

    state = [layers]

    def step():
        value, state[0] = train(state[0], x)
        return float(value)

    return step


def in_tensorflow():
    import tensorflow as tf

    import lcmulti

    variables = []
    for size, window, stride in sizes():
        spec = lcmulti.LocalConvSpec(
            (size, size, CHANNELS), CHANNELS, window, strides=stride, data_format="channels_last"
        )
        kernel, bias = lcmulti.initial_weights(spec, seed=len(variables))
        variables.append((tf.Variable(kernel), tf.Variable(bias), stride))
    weights = [each for kernel, bias, _ in variables for each in (kernel, bias)]
    x = tf.random.normal((BATCH, SIZE, SIZE, CHANNELS))

    @tf.function
    def train():
        with tf.GradientTape() as tape:
            y = x
            for kernel, bias, stride in variables:
                y = tf.nn.relu(lcmulti.local_conv(y, kernel, bias, strides=stride))
            loss = tf.reduce_mean(tf.square(y))
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.assign_sub(1e-3 * gradient)
        return loss

    return lambda: float(train())


FRAMEWORKS = {
    "torch": in_torch, "nnx": in_nnx, "equinox": in_equinox, "tensorflow": in_tensorflow,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("framework", choices=FRAMEWORKS)
    step = FRAMEWORKS[parser.parse_args().framework]()
    losses = []
    for _ in range(3):
        start = time.perf_counter()
        losses.append(step())
        print(f"loss {losses[-1]:.9f} in {time.perf_counter() - start:.2f} s", flush=True)
    assert losses[0] > losses[1] > losses[2], losses


if __name__ == "__main__":
    main()
