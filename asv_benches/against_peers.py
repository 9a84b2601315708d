"""Time lcmulti beside the recipe people use today, forward + backward, in one process.

    python asv_benches/against_peers.py torch|jax|tensorflow [WORKLOAD ...] [--repeat 5]

Peers: ``unfold`` + ``einsum`` in PyTorch, ``lax.conv_general_dilated_local`` in JAX, tf_keras'
``LocallyConnected2D(implementation=1)`` in TensorFlow, and EIR's ``einsum("nhw,ohw->noh")``
where windows do not overlap. Times are medians of interleaved runs; what is to be quoted is
the ratio. A peer that takes over a minute for one step is recorded as that.
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


def torch_steps(spec: lcmulti.LocalConvSpec, batch: int) -> tuple[Step, Step]:
    """lcmulti and the peer in PyTorch."""
    import torch

    x, kernel, dy = map(torch.from_numpy, arrays(spec, batch))
    x.requires_grad_(), kernel.requires_grad_()
    axes = range(spec.ndim)

    def ours() -> Any:
        y = lcmulti.local_conv(
            x, kernel, strides=spec.strides, padding=spec.padding, data_format="channels_last"
        )
        return y, *torch.autograd.grad(y, (x, kernel), dy)

    def unfold_einsum() -> Any:
        pads = [n for pair in reversed(spec.padding) for n in pair]
        patches = torch.nn.functional.pad(x, (0, 0, *pads))
        for axis in axes:
            patches = patches.unfold(axis + 1, spec.kernel_size[axis], spec.strides[axis])
        o, k = "opq"[: spec.ndim], "ijk"[: spec.ndim]
        y = torch.einsum(f"n{o}c{k},{o}{k}cf->n{o}f", patches, kernel)
        return y, *torch.autograd.grad(y, (x, kernel), dy)

    def eir_einsum() -> Any:
        seen = x.reshape(batch, prod(spec.output_size), -1)
        y = torch.einsum("nhw,ohw->noh", seen, eir_kernel)
        return y, *torch.autograd.grad(y, (x, eir_kernel), eir_dy)

    if spec.is_disjoint and spec.ndim == 1:
        eir_kernel = kernel.detach().reshape(-1, spec.terms, spec.filters).permute(2, 0, 1)
        eir_kernel = eir_kernel.contiguous().requires_grad_()
        eir_dy = dy.permute(0, 2, 1).contiguous()
        return ours, eir_einsum
    return ours, unfold_einsum


def jax_steps(spec: lcmulti.LocalConvSpec, batch: int) -> tuple[Step, Step]:
    """lcmulti and the peer in JAX, both jitted."""
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

    first = step(ours)
    # Its weights are (c, k...) flattened per position; the values do not matter to the time.
    peer_kernel = kernel.reshape(*spec.output_size, -1, spec.filters)
    second, peer_dy = step(lax_local), dy
    if spec.is_disjoint and spec.ndim == 1:
        peer_kernel = jnp.transpose(kernel.reshape(-1, spec.terms, spec.filters), (2, 0, 1))
        second, peer_dy = step(eir_einsum), jnp.transpose(dy, (0, 2, 1))
    return (
        lambda: jax.block_until_ready(first(x, kernel, dy)),
        lambda: jax.block_until_ready(second(x, peer_kernel, peer_dy)),
    )


def tensorflow_steps(spec: lcmulti.LocalConvSpec, batch: int) -> tuple[Step, Step]:
    """lcmulti and the peer in TensorFlow, both in a tf.function."""
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

    if spec.is_disjoint and spec.ndim == 1:
        weights = tf.transpose(tf.reshape(kernel, (-1, spec.terms, spec.filters)), (2, 0, 1))

        def eir_einsum(x: Any) -> Any:
            seen = tf.reshape(x, (batch, prod(spec.output_size), -1))
            return tf.transpose(tf.einsum("nhw,ohw->noh", seen, weights), (0, 2, 1))

        return step(ours, kernel), step(eir_einsum, weights)
    if any(map(any, spec.padding)):
        raise NotImplementedError("implementation 1 has no padding")
    if prod(spec.output_size) > TOO_MANY_POSITIONS:
        raise NotImplementedError(f"builds {prod(spec.output_size)} slices: minutes, gigabytes")
    kind = {1: tf_keras.layers.LocallyConnected1D, 2: tf_keras.layers.LocallyConnected2D}[spec.ndim]
    layer = kind(spec.filters, spec.kernel_size, spec.strides, use_bias=False, implementation=1)
    layer.build((batch, *spec.input_shape))
    return step(ours, kernel), step(layer, layer.trainable_weights[0])


STEPS = {"torch": torch_steps, "jax": jax_steps, "tensorflow": tensorflow_steps}


def timed(step: Step) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def compare(ours: Step, peer: Step, repeat: int) -> tuple[float, float]:
    """Median seconds of both, interleaved, after one warm-up each."""
    timed(ours)
    slow = timed(peer) > PATIENCE
    pairs = [(timed(ours), timed(peer)) for _ in range(1 if slow else repeat)]
    return median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)


def main() -> int:
    """Print the table, then the geometric mean over the 2D workloads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("framework", choices=STEPS)
    parser.add_argument("workload", nargs="*", help="names; all by default")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--memory", type=float, default=2e9, help="most bytes of patches")
    arguments = parser.parse_args()
    if arguments.framework == "torch":
        import torch

        torch.set_num_threads(len(os.sched_getaffinity(0)))
    ratios = []
    print(f"{'workload':<20} {'implementation':<14} {'ours ms':>9} {'peer ms':>9} {'ratio':>7}")
    for workload in workloads():
        if arguments.workload and workload["name"] not in arguments.workload:
            continue
        spec, batch = spec_of(workload), workload["batch"]
        if 4 * batch * prod(spec.output_size) * spec.terms > arguments.memory:
            print(f"{workload['name']:<20} patches over {arguments.memory:.0f} bytes")
            continue
        chosen = lcmulti.explain(spec, batch=batch, backend=arguments.framework).implementation
        try:
            ours, peer = STEPS[arguments.framework](spec, batch)
            mine, theirs = compare(ours, peer, arguments.repeat)
        except NotImplementedError as error:
            print(f"{workload['name']:<20} {chosen:<14} peer cannot: {error}")
            continue
        if spec.ndim == 2:
            ratios.append(theirs / mine)
        print(
            f"{workload['name']:<20} {chosen:<14} {mine * 1e3:9.2f} {theirs * 1e3:9.2f} "
            f"{theirs / mine:7.2f}",
            flush=True,
        )
    if ratios:
        print(f"geometric mean over 2D: {exp(sum(map(log, ratios)) / len(ratios)):.2f}")
        print(f"lowest over 2D: {min(ratios):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
