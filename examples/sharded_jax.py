"""Train a layer with a filter for each of 20 million positions, over two processes.

    python examples/sharded_jax.py                      # two processes on this machine

On several machines, one process on each, which `jax.distributed` joins:

    python examples/sharded_jax.py --address HOST:12345 --processes 2 --process 0    # on HOST
    python examples/sharded_jax.py --address HOST:12345 --processes 2 --process 1    # on the other

Each process draws, holds and updates the weights of its own positions alone, and sends none of
them. It receives one input from its neighbour.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import lcmulti_jax
import numpy as np
from jax.sharding import NamedSharding

import lcmulti

parser = argparse.ArgumentParser(description="Train a layer of very many positions.")
parser.add_argument("--positions", type=int, default=20_000_000)
parser.add_argument("--steps", type=int, default=5)
parser.add_argument("--processes", type=int, default=2)
parser.add_argument("--process", type=int, help="which of them this is; none starts them all here")
parser.add_argument("--address", help="HOST:PORT of process 0")


def signal(shape: tuple[int, ...], sharding: NamedSharding, seed: int) -> jax.Array:
    """Noise, of which each process draws the part for its own positions."""

    def part(index: tuple[slice, ...]) -> np.ndarray:
        start, stop, _ = index[1].indices(shape[1])
        draw = np.random.default_rng((seed, start)).standard_normal
        return draw((shape[0], stop - start, shape[2]), dtype=np.float32)

    return jax.make_array_from_callback(shape, sharding, part)


def train(options: argparse.Namespace) -> None:
    """Train the filter of every position to return the position's own input."""
    mesh = jax.make_mesh((jax.device_count(),), ("positions",))
    spec = lcmulti.LocalConvSpec(
        (options.positions, 1), 1, 3, padding="same", data_format="channels_last"
    )
    layer = lcmulti_jax.sharded(spec, mesh, "positions")
    kernel, bias = layer.init(jax.random.key(0))
    x = signal(layer.input_shape(4), layer.input_sharding, seed=1)

    def loss(kernel: jax.Array, bias: jax.Array, x: jax.Array) -> jax.Array:
        wanted = x[:, : options.positions]
        return jnp.square(layer(x, kernel, bias) - wanted).mean() * options.positions

    @jax.jit
    def step(kernel: jax.Array, bias: jax.Array, x: jax.Array) -> tuple[jax.Array, ...]:
        value, (dkernel, dbias) = jax.value_and_grad(loss, (0, 1))(kernel, bias, x)
        return kernel - 0.1 * dkernel, bias - 0.1 * dbias, value / options.positions

    first = jax.process_index() == 0
    if first:
        own = kernel.addressable_shards[0].data
        print(f"{options.positions:,} positions over {jax.process_count()} processes")
        print(f"weights {kernel.nbytes / 2**20:,.0f} MiB, here {own.nbytes / 2**20:,.0f} MiB")
    for number in range(options.steps):
        started = time.perf_counter()
        kernel, bias, value = step(kernel, bias, x)
        value.block_until_ready()
        if first:
            took = time.perf_counter() - started
            print(f"step {number}: error {float(value):.4f}, {took:.2f} s", flush=True)


def main() -> int:
    """Run as one of the processes, or start them."""
    options = parser.parse_args()
    if options.process is not None:
        jax.distributed.initialize(options.address, options.processes, options.process)
        train(options)
        return 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, __file__, *sys.argv[1:], "--address", address, "--process"]
    started = [subprocess.Popen([*command, str(i)]) for i in range(options.processes)]
    try:
        return max(process.wait() for process in started)
    finally:
        for process in started:
            process.kill()


if __name__ == "__main__":
    sys.exit(main())
