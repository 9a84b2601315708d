"""Time the two ways to apply a low-rank kernel: form it, or apply each kernel of its basis.

    python asv_benches/low_rank.py [WORKLOAD ...] [--batch 1 8 32] [--rank 1 2 4]

It times forward and backward in PyTorch in float32, as medians of interleaved runs. ``auto`` marks
the way that `lcmulti.local_conv_low_rank` takes; the costs in `lcmulti.low_rank` are from this
table.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any
from unittest import mock

import torch
from against_peers import medians

import lcmulti
from lcmulti.bench.workloads import named
from lcmulti.operations import low_rank
from lcmulti.plugins.contract import Problem, Resources


def steps(spec: lcmulti.LocalConvSpec, batch: int, rank: int) -> dict[str, Any]:
    """Return a step for each of the two ways."""
    taps = spec.kernel_shape[spec.ndim :]
    x = torch.randn(batch, *spec.input_shape, requires_grad=True)
    basis = torch.randn(rank, *(1,) * spec.ndim, *taps, requires_grad=True)
    mixed = torch.randn(*spec.output_size, rank, requires_grad=True)

    def step(formed: bool) -> Any:
        def run() -> None:
            with mock.patch.object(low_rank, "_is_cheaper_formed", lambda *_: formed):
                y = lcmulti.local_conv_low_rank(
                    x, basis, mixed, strides=spec.strides, padding=spec.padding,
                    data_format="channels_last",
                )  # fmt: skip
                torch.autograd.grad(y.sum(), (x, basis, mixed))

        return run

    return {"formed": step(True), "shared": step(False)}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", nargs="*", default=["lowrank_cifar_2", "deepface_l6"])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rank", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    print(f"{'':<18}batch rank   formed ms   shared ms  auto")
    for workload in named(arguments.workload):
        spec = workload.spec
        for batch in arguments.batch:
            for rank in arguments.rank:
                times = medians(steps(spec, batch, rank), arguments.repeat)
                resources = Resources(lcmulti.config.max_workspace)
                problem = Problem(spec.computed(), batch, "float32", "cpu", False, resources)
                way = "formed" if low_rank._is_cheaper_formed(problem, rank) else "shared"
                formed, shared = times["formed"] * 1e3, times["shared"] * 1e3
                print(
                    f"{workload.name:<18}{batch:5}{rank:5}{formed:12.1f}{shared:12.1f}  {way}",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
