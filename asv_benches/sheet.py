"""Time what the sheet penalty adds to a training step of its layer, at batch 64.

    python asv_benches/sheet.py [torch] [jax] [tensorflow]

There is a row for each layer: the least milliseconds of a step (forward, backward, SGD) without and
with the penalty, in turns in one process, and the share that the penalty adds.

``floor`` is the share that moving the kernel `PASSES` times would add, at this machine's bandwidth.
"""

from __future__ import annotations

import sys
from time import perf_counter

import lcmulti
from lcmulti.bench.machine import bandwidth, cores

BATCH, ROUNDS = 64, 15
LAYERS = (  # input size, channels, sheet
    (32, 3, (8, 8)),
    (32, 16, (8, 8)),
    (16, 64, (8, 8)),
)
KERNEL = 3
PASSES = 6
"""Read it for the value; read it and write the gradient; add this to the layer's gradient."""


def torch_step(size, channels, sheet):
    import torch
    from lcmulti_torch import LocallyConnected2d

    layer = LocallyConnected2d(channels, sheet[0] * sheet[1], KERNEL, size)
    x = torch.randn(BATCH, channels, size, size)
    optimizer = torch.optim.SGD(layer.parameters(), 1e-3)

    def step(penalty):
        optimizer.zero_grad()
        loss = layer(x).square().mean()
        if penalty:
            loss = loss + lcmulti.sheet_smoothness(
                layer.weight, layer.bias, layer.spec, sheet=sheet
            )
        loss.backward()
        optimizer.step()

    return step


def jax_step(size, channels, sheet):
    import jax

    spec = lcmulti.LocalConvSpec(
        (size, size, channels), sheet[0] * sheet[1], KERNEL, data_format="channels_last"
    )
    weights = tuple(jax.numpy.asarray(each) for each in lcmulti.initial_weights(spec, seed=0))
    x = jax.random.normal(jax.random.key(0), (BATCH, size, size, channels))

    def loss(weights, penalty):
        kernel, bias = weights
        value = (lcmulti.local_conv(x, kernel, bias, data_format="channels_last") ** 2).mean()
        if penalty:
            value += lcmulti.sheet_smoothness(kernel, bias, spec, sheet=sheet)
        return value

    @jax.jit
    def update(weights, penalty):
        gradients = jax.grad(loss)(weights, penalty)
        return jax.tree.map(lambda w, g: w - 1e-3 * g, weights, gradients)

    update = jax.jit(update.__wrapped__, static_argnums=1)

    def step(penalty):
        jax.block_until_ready(update(weights, penalty))

    return step


def tensorflow_step(size, channels, sheet):
    import tensorflow as tf

    spec = lcmulti.LocalConvSpec(
        (size, size, channels), sheet[0] * sheet[1], KERNEL, data_format="channels_last"
    )
    weights = [tf.Variable(each) for each in lcmulti.initial_weights(spec, seed=0)]
    x = tf.random.normal((BATCH, size, size, channels))

    @tf.function
    def update(penalty):
        with tf.GradientTape() as tape:
            kernel, bias = (tf.convert_to_tensor(each) for each in weights)
            y = lcmulti.local_conv(x, kernel, bias, data_format="channels_last")
            loss = tf.reduce_mean(y**2)
            if penalty:
                loss += lcmulti.sheet_smoothness(kernel, bias, spec, sheet=sheet)
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.assign_sub(1e-3 * gradient)
        return loss

    def step(penalty):
        update(penalty).numpy()

    return step


STEPS = {"torch": torch_step, "jax": jax_step, "tensorflow": tensorflow_step}


def main(frameworks):
    print("framework   input      filters   step ms   with penalty   adds  floor")
    for framework in frameworks or STEPS:
        for size, channels, sheet in LAYERS:
            step = STEPS[framework](size, channels, sheet)
            taken = {False: [], True: []}
            for turn in range(ROUNDS + 2):
                for penalty in (False, True):
                    start = perf_counter()
                    step(penalty)
                    if turn > 1:
                        taken[penalty].append(perf_counter() - start)
            without, with_ = (min(taken[each]) for each in (False, True))
            shape = f"{size}x{size}x{channels}"
            window = KERNEL * KERNEL * channels
            elements = (size - KERNEL + 1) ** 2 * window * sheet[0] * sheet[1]
            floor = PASSES * 4 * elements / bandwidth(cores(), elements // cores())
            print(
                f"{framework:11} {shape:10} {sheet[0] * sheet[1]:7} {without * 1e3:9.1f} "
                f"{with_ * 1e3:14.1f} {(with_ - without) / without:6.0%} {floor / without:6.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
