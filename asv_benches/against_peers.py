"""Time lcmulti beside the recipe people use today, forward + backward, in one process.

    python asv_benches/against_peers.py torch|jax|tensorflow [WORKLOAD ...] [--repeat 5]

Peers: ``torch.nn.functional.unfold`` + ``einsum`` and ``Tensor.unfold`` views + ``einsum`` in
PyTorch, ``lax.conv_general_dilated_local`` in JAX, tf_keras' ``implementation=1`` in
TensorFlow, and EIR's ``einsum("nhw,ohw->noh")`` where windows do not overlap. Times are medians
of interleaved runs; what is to be quoted is the ratio. A peer that takes over a minute for one
step is timed once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from importlib import resources
from math import exp, log, prod
from statistics import median
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import lcmulti

PATIENCE = 60.0  # seconds for one step of a peer, after which it is timed once and no more
TOO_MANY_POSITIONS = 10_000  # tf_keras builds one slice and one product a position


def workloads() -> list[dict[str, Any]]:
    """The workloads that ship with the conformance suite."""
    text = resources.files("lcmulti.conformance").joinpath("data/workloads.json").read_text()
    return json.loads(text)


def spec_of(workload: dict[str, Any]) -> lcmulti.LocalConvSpec:
    """The geometry of a workload."""
    return lcmulti.LocalConvSpec(
        (*workload["input_size"], workload["in_channels"]),
        workload["filters"],
        workload["kernel_size"],
        strides=workload["strides"],
        padding=workload["padding"],
        data_format="channels_last",
    )


def arrays(spec: lcmulti.LocalConvSpec, batch: int) -> tuple[np.ndarray, ...]:
    """Random input, kernel and output gradient in float32."""
    rng = np.random.default_rng(0)
    shapes = ((batch, *spec.input_shape), spec.kernel_shape, (batch, *spec.output_shape))
    return tuple(rng.standard_normal(shape, dtype="float32") for shape in shapes)


Step = Callable[[], Any]


def torch_steps(spec: lcmulti.LocalConvSpec, batch: int) -> dict[str, Step]:
    """In PyTorch's own layout, channels first, for everyone."""
    import torch

    x, kernel, dy = map(torch.from_numpy, arrays(spec, batch))
    x, dy = (each.movedim(-1, 1).contiguous() for each in (x, dy))
    kernel.requires_grad_()
    x.requires_grad_()
    positions, o, k = prod(spec.output_size), "opq"[: spec.ndim], "ijk"[: spec.ndim]
    pads = [n for pair in reversed(spec.padding) for n in pair]

    def grads(y: Any, weights: Any, dy: Any = dy) -> Any:
        return y, *torch.autograd.grad(y, (x, weights), dy)

    def ours() -> Any:
        y = lcmulti.local_conv(
            x, kernel, strides=spec.strides, padding=spec.padding, data_format="channels_first"
        )
        return grads(y, kernel)

    def unfold_einsum() -> Any:
        padded = torch.nn.functional.pad(x, pads)
        if spec.ndim == 1:  # torch.nn.functional.unfold is 2D only
            patches = torch.nn.functional.unfold(
                padded[..., None, :], (1, *spec.kernel_size), stride=(1, *spec.strides)
            )
        else:
            patches = torch.nn.functional.unfold(padded, spec.kernel_size, stride=spec.strides)
        y = torch.einsum("nkp,pkf->nfp", patches, flat)
        return grads(y, flat, dy.flatten(2))

    def view_einsum() -> Any:
        patches = torch.nn.functional.pad(x, pads)
        for axis in range(spec.ndim):
            patches = patches.unfold(axis + 2, spec.kernel_size[axis], spec.strides[axis])
        return grads(torch.einsum(f"nc{o}{k},{o}{k}cf->nf{o}", patches, kernel), kernel)

    def eir_einsum() -> Any:
        seen = x.reshape(batch, positions, -1)
        return grads(torch.einsum("nhw,ohw->noh", seen, eir_kernel), eir_kernel)

    # The recipe orders a window (c, k...); the values do not matter to the time.
    flat = kernel.detach().reshape(positions, spec.terms, spec.filters).requires_grad_()
    eir_kernel = kernel.detach().reshape(positions, -1, spec.filters).permute(2, 0, 1)
    eir_kernel = eir_kernel.contiguous().requires_grad_()
    peers = {"view+einsum": view_einsum}
    if spec.ndim < 3:
        peers = {"unfold+einsum": unfold_einsum, **peers}
    if spec.is_disjoint and spec.ndim == 1 and spec.in_channels == 1:
        peers = {"EIR einsum": eir_einsum, **peers}
    return {"ours": ours, **peers}


def jax_steps(spec: lcmulti.LocalConvSpec, batch: int) -> dict[str, Step]:
    """All jitted."""
    import jax
    import jax.numpy as jnp

    x, kernel, dy = map(jnp.asarray, arrays(spec, batch))
    letters = "HWD"[: spec.ndim]
    dims = (f"N{letters}C", f"{letters}IO", f"N{letters}C")

    def step(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(x: Any, kernel: Any, dy: Any) -> Any:
            y, pull = jax.vjp(function, x, kernel)
            return y, *pull(dy)

        return jax.jit(run)

    def ours(x: Any, kernel: Any) -> Any:
        return lcmulti.local_conv(
            x, kernel, strides=spec.strides, padding=spec.padding, data_format="channels_last"
        )

    def lax_local(x: Any, kernel: Any) -> Any:
        return jax.lax.conv_general_dilated_local(
            x, kernel, spec.strides, spec.padding, spec.kernel_size, dimension_numbers=dims
        )

    def eir_einsum(x: Any, kernel: Any) -> Any:
        return jnp.einsum("nhw,ohw->noh", x.reshape(batch, prod(spec.output_size), -1), kernel)

    def ready(function: Callable[..., Any], kernel: Any, dy: Any) -> Step:
        run = step(function)
        return lambda: jax.block_until_ready(run(x, kernel, dy))

    # Its weights are (c, k...) flattened per position; the values do not matter to the time.
    flat = kernel.reshape(*spec.output_size, -1, spec.filters)
    steps = {"ours": ready(ours, kernel, dy), "lax local": ready(lax_local, flat, dy)}
    if spec.is_disjoint and spec.ndim == 1 and spec.in_channels == 1:
        eir_kernel = jnp.transpose(kernel.reshape(-1, spec.terms, spec.filters), (2, 0, 1))
        steps["EIR einsum"] = ready(eir_einsum, eir_kernel, jnp.transpose(dy, (0, 2, 1)))
    return steps


def tensorflow_steps(spec: lcmulti.LocalConvSpec, batch: int) -> dict[str, Step]:
    """All in a tf.function."""
    import tensorflow as tf
    import tf_keras

    x, kernel, dy = map(tf.constant, arrays(spec, batch))

    def step(function: Callable[..., Any], weights: Any) -> Step:
        @tf.function
        def run() -> Any:
            with tf.GradientTape() as tape:
                tape.watch([x, weights])
                y = function(x)
            return y, *tape.gradient(y, [x, weights], dy)

        return lambda: [each.numpy().ravel()[:1] for each in run()]

    def ours(x: Any) -> Any:
        return lcmulti.local_conv(
            x, kernel, strides=spec.strides, padding=spec.padding, data_format="channels_last"
        )

    steps = {"ours": step(ours, kernel)}
    if spec.is_disjoint and spec.ndim == 1 and spec.in_channels == 1:
        weights = tf.transpose(tf.reshape(kernel, (-1, spec.terms, spec.filters)), (2, 0, 1))

        def eir_einsum(x: Any) -> Any:
            seen = tf.reshape(x, (batch, prod(spec.output_size), -1))
            return tf.transpose(tf.einsum("nhw,ohw->noh", seen, weights), (0, 2, 1))

        steps["EIR einsum"] = step(eir_einsum, weights)
    layers = {1: tf_keras.layers.LocallyConnected1D, 2: tf_keras.layers.LocallyConnected2D}
    padded = any(map(any, spec.padding))  # implementation 1 has none
    if spec.ndim in layers and not padded and prod(spec.output_size) <= TOO_MANY_POSITIONS:
        layer = layers[spec.ndim](
            spec.filters, spec.kernel_size, spec.strides, use_bias=False, implementation=1
        )
        layer.build((batch, *spec.input_shape))
        steps["tf_keras 1"] = step(layer, layer.trainable_weights[0])
    return steps


STEPS = {"torch": torch_steps, "jax": jax_steps, "tensorflow": tensorflow_steps}


def timed(step: Step) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def medians(steps: dict[str, Step], repeat: int) -> dict[str, float]:
    """Median seconds of each, interleaved, after two warm-ups each or one that took long."""
    slow = {name for name, step in steps.items() if timed(step) > PATIENCE}
    for name in steps.keys() - slow:
        steps[name]()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeat):
        for name, step in steps.items():
            if turn == 0 or name not in slow:
                times[name].append(timed(step))
    return {name: median(each) for name, each in times.items()}


def main() -> int:
    """Print the table, then the geometric means over the 2D workloads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("framework", choices=STEPS)
    parser.add_argument("workload", nargs="*", help="names; all by default")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--memory", type=float, default=2e9, help="most bytes of patches")
    arguments = parser.parse_args()
    if arguments.framework == "torch":
        import torch

        torch.set_num_threads(len(os.sched_getaffinity(0)))
    ratios: dict[str, list[float]] = {}
    print("forward + backward, float32; x: times as long as ours")
    for workload in workloads():
        name = workload["name"]
        if arguments.workload and name not in arguments.workload:
            continue
        spec, batch = spec_of(workload), workload["batch"]
        if 4 * batch * prod(spec.output_size) * spec.terms > arguments.memory:
            print(f"{name:<20} patches over {arguments.memory:.0f} bytes")
            continue
        chosen = lcmulti.explain(spec, batch=batch, backend=arguments.framework).implementation
        times = medians(STEPS[arguments.framework](spec, batch), arguments.repeat)
        mine = times.pop("ours")
        row = f"{name:<20} {chosen:<9} {mine * 1e3:9.2f} ms"
        for peer, seconds in times.items():
            row += f"  {peer} {seconds / mine:6.2f}x"
            if spec.ndim == 2:
                ratios.setdefault(peer, []).append(seconds / mine)
        print(row, flush=True)
    for peer, each in ratios.items():
        mean = exp(sum(map(log, each)) / len(each))
        print(f"2D, {peer}: geometric mean {mean:.2f}x, lowest {min(each):.2f}x, of {len(each)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
