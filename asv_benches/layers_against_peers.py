"""Compare the time and memory of a layer's training step with those of layers that people write.

    python asv_benches/layers_against_peers.py torch|nnx [WORKLOAD ...] [--repeat 5]
    python asv_benches/layers_against_peers.py memory [WORKLOAD] [--batch 32]

A step is forward, loss, backward (also in the input, as in the middle of a network) and SGD.
The peers are ``F.unfold`` + ``einsum`` and the module of the PyTorch forum ("Locally connected
layers", discuss.pytorch.org 26979) for PyTorch, and Flax linen's ``ConvLocal`` for NNX. Times are
medians of interleaved runs in one process; quote their ratio.

The forum's module holds all products of a step, filters times the patches. Where they exceed 1 GB,
both are timed with fewer samples. Memory is the peak resident size of a new process, less its size
after the framework was imported and a first step was made.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from math import exp, log, prod
from pathlib import Path
from typing import Any

from against_peers import medians

import lcmulti
from lcmulti.bench.timing import Step
from lcmulti.bench.workloads import Workload, cases, named

PATCHES = 2e9  # largest number of bytes of a measured workload's patches
PRODUCTS = 1e9  # largest number of bytes of the products that the forum's module makes
IN_JAX = {"ours in NNX": "ours", "linen ConvLocal": "linen ConvLocal"}


def padded_spec(spec: lcmulti.LocalConvSpec) -> list[int]:
    """Return the padding in the order of torch.nn.functional.pad."""
    return [n for pair in reversed(spec.padding) for n in pair]


def torch_modules(spec: lcmulti.LocalConvSpec) -> dict[str, Callable[[], Any]]:
    """Return functions that make our layer and the two that people write, for one geometry."""
    import lcmulti_torch
    import torch
    from torch import nn

    functional = nn.functional
    out, positions = spec.output_size, prod(spec.output_size)
    (kh, kw), (sh, sw) = spec.kernel_size, spec.strides

    class Unfold(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(positions, spec.terms, spec.filters) / 10)
            self.bias = nn.Parameter(torch.zeros(spec.filters, positions))

        def forward(self, x: Any) -> Any:
            x = functional.pad(x, padded_spec(spec))
            patches = functional.unfold(x, spec.kernel_size, stride=spec.strides)
            y = torch.einsum("nkp,pkf->nfp", patches, self.weight) + self.bias
            return y.unflatten(-1, out)

    class Forum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            channels = spec.in_channels
            weight = torch.randn(1, spec.filters, channels, *out, kh * kw)
            self.weight = nn.Parameter(weight / 10)
            self.bias = nn.Parameter(torch.zeros(1, spec.filters, *out))

        def forward(self, x: Any) -> Any:
            x = functional.pad(x, padded_spec(spec))
            x = x.unfold(2, kh, sh).unfold(3, kw, sw)
            x = x.contiguous().view(*x.size()[:-2], -1)
            return (x.unsqueeze(1) * self.weight).sum([2, -1]) + self.bias

    def ours() -> Any:
        return lcmulti_torch.LocallyConnected2d(
            spec.in_channels, spec.filters, spec.kernel_size, spec.input_size, spec.strides,
            spec.padding,
        )  # fmt: skip

    return {"ours": ours, "unfold+einsum": Unfold, "forum": Forum}


def torch_step(module: Any, spec: lcmulti.LocalConvSpec, batch: int) -> Step:
    """Return one step of SGD."""
    import torch

    x = torch.randn(batch, spec.in_channels, *spec.input_size, requires_grad=True)
    optimizer = torch.optim.SGD(module.parameters(), 1e-3)

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        x.grad = None
        module(x).square().mean().backward()
        optimizer.step()

    return step


def nnx_modules(spec: lcmulti.LocalConvSpec) -> dict[str, Callable[[int], Any]]:
    """Return functions that make ``(apply, parameters)``."""
    import jax
    import jax.numpy as jnp
    import lcmulti_jax.nnx
    from flax import linen, nnx

    def ours(batch: int) -> Any:
        layer = lcmulti_jax.nnx.LocallyConnected(
            spec.in_channels, spec.filters, spec.kernel_size, spec.input_size, spec.strides,
            padding=spec.padding, rngs=nnx.Rngs(0),
        )  # fmt: skip
        graph, parameters = nnx.split(layer)
        return lambda parameters, x: nnx.merge(graph, parameters)(x), parameters

    def conv_local(batch: int) -> Any:
        layer = linen.ConvLocal(
            spec.filters, spec.kernel_size, strides=spec.strides, padding=spec.padding
        )
        shape = (batch, *spec.input_size, spec.in_channels)
        # Its own initialiser is slow, and the values do not matter here.
        shapes = jax.eval_shape(layer.init, jax.random.key(0), jnp.zeros(shape))
        parameters = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01, leaf.dtype), shapes)
        return layer.apply, parameters

    return {"ours": ours, "linen ConvLocal": conv_local}


def nnx_step(made: Any, spec: lcmulti.LocalConvSpec, batch: int) -> Step:
    """Return one jitted step of SGD. It replaces the parameters, as training loops do."""
    import functools

    import jax
    import jax.numpy as jnp

    apply, parameters = made
    x = jax.random.normal(jax.random.key(1), (batch, *spec.input_size, spec.in_channels))

    def loss(parameters: Any, x: Any) -> Any:
        return jnp.square(apply(parameters, x)).mean()

    @functools.partial(jax.jit, donate_argnums=0)
    def train(parameters: Any, x: Any) -> Any:
        gradient, dx = jax.grad(loss, argnums=(0, 1))(parameters, x)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, parameters, gradient), dx

    state = [parameters]

    def step() -> Any:
        state[0], dx = train(state[0], x)
        jax.block_until_ready((state[0], dx))

    return step


def chosen(names: list[str]) -> list[Workload]:
    """Return the 2D workloads that were named, or all, if their patches are small enough."""
    found = []
    for workload in named(names or cases()):
        spec = workload.spec
        size = 4 * workload.batch * prod(spec.output_size) * spec.terms
        if spec.ndim == 2 and size <= PATCHES:
            found.append(workload)
    return found


def compare(framework: str, names: list[str], repeat: int) -> None:
    """Print the table, then the geometric means."""
    ratios: dict[str, list[float]] = {}
    print("training step, float32; x: times as long as ours")
    for workload in chosen(names):
        spec, batch = workload.spec, workload.batch
        products = 4 * prod(spec.output_size) * spec.terms * spec.filters
        few = max(min(batch, int(PRODUCTS // products)), 1)
        row = f"{workload.name:<20}"
        for peers, size in _groups(framework, batch, few):
            if framework == "torch":
                makers = torch_modules(spec)
                steps = {n: torch_step(makers[n](), spec, size) for n in ("ours", *peers)}
            else:
                made = nnx_modules(spec)
                steps = {n: nnx_step(made[n](size), spec, size) for n in ("ours", *peers)}
            times = medians(steps, repeat)
            mine = times.pop("ours")
            row += (
                f" {mine * 1e3:8.1f} ms" if size == batch else f" (of {size}: {mine * 1e3:.1f} ms)"
            )
            for peer, seconds in times.items():
                row += f"  {peer} {seconds / mine:.1f}x"
                ratios.setdefault(peer, []).append(seconds / mine)
        print(row, flush=True)
    for peer, each in ratios.items():
        mean = exp(sum(map(log, each)) / len(each))
        print(f"{peer}: geometric mean {mean:.2f}x, lowest {min(each):.2f}x, of {len(each)}")


def _groups(framework: str, batch: int, few: int) -> list[tuple[tuple[str, ...], int]]:
    if framework == "nnx":
        return [(("linen ConvLocal",), batch)]
    if few == batch:
        return [(("unfold+einsum", "forum"), batch)]
    return [(("unfold+einsum",), batch), (("forum",), few)]


def resident(mark: str) -> int:
    """Return ``VmHWM`` (peak) or ``VmRSS`` (now) of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(mark):
            return int(line.split()[1]) * 1024
    raise NotImplementedError("this system does not say how much memory a process holds")


def weigh(name: str, peer: str, batch: int) -> None:
    """Print the peak memory of three steps, in a process of its own."""
    (spec,) = (each.spec for each in named([name]))
    small = lcmulti.LocalConvSpec((4, 4, 1), 1, 2, data_format="channels_last")
    for each, size in ((small, 1), (spec, batch)):  # the small one allocates what stays
        before = resident("VmRSS")
        if peer in IN_JAX:
            step = nnx_step(nnx_modules(each)[IN_JAX[peer]](size), each, size)
        else:
            step = torch_step(torch_modules(each)[peer](), each, size)
        for _ in range(3):
            step()
    print(resident("VmHWM") - before)


def memory(names: list[str], batch: int) -> None:
    """Print the peak memory of each peer beside ours."""
    for name in names or ["deepface_l4"]:
        (spec,) = (each.spec for each in named([name]))
        print(f"{name}, batch {batch}: peak of three training steps")
        for group in (("ours", "unfold+einsum", "forum"), tuple(IN_JAX)):
            mine = None
            for peer in group:
                products = 4 * batch * prod(spec.output_size) * spec.terms * spec.filters
                if peer == "forum" and products > PRODUCTS:
                    print(f"  {peer:<16} not run: its products alone are {products / 1e6:,.0f} MB")
                    continue
                command = [sys.executable, __file__, "weigh", name, peer, "--batch", str(batch)]
                run = subprocess.run(command, check=True, capture_output=True, text=True)
                taken = int(run.stdout.split()[-1])
                mine = mine or taken
                print(f"  {peer:<16} {taken / 1e6:8,.0f} MB  {taken / mine:5.2f}x", flush=True)


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("torch", "nnx", "memory", "weigh"))
    parser.add_argument("names", nargs="*", help="workloads; all in 2D by default")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32, help="of memory")
    arguments = parser.parse_args()
    if arguments.what == "torch":
        import torch

        torch.set_num_threads(len(os.sched_getaffinity(0)))
    if arguments.what == "memory":
        memory(arguments.names, arguments.batch)
    elif arguments.what == "weigh":
        weigh(*arguments.names, arguments.batch)
    else:
        compare(arguments.what, arguments.names, arguments.repeat)
    return 0


if __name__ == "__main__":
    sys.exit(main())
