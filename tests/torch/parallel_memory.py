"""A rank holds its share of the weights, halos, and a workspace no larger than allowed."""

from __future__ import annotations

import gc
from pathlib import Path

import lcmulti_torch as lt
import torch
import torch.distributed as dist
from lcmulti_torch.parallel import shard
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

import lcmulti

MIB = 2**20
POSITIONS, TAPS = 2_000_003, 16
WORKSPACE = 8 * MIB


def peak():
    """Return the most bytes that this process has held since `forget`."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line) * 1024


def held():
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line) * 1024


def forget():
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")


def check_a_rank_holds_its_share(rank):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    share = 4 * POSITIONS * TAPS // dist.get_world_size()
    small = lt.LocallyConnected1d(1, 1, TAPS, 50, padding="same", device="meta")
    shard(small, mesh)(torch.ones(2, 1, 50)).sum().backward()  # loads what a first use loads
    forget()
    before = held()
    layer = lt.LocallyConnected1d(1, 1, TAPS, POSITIONS, padding="same", device="meta")
    shard(layer, mesh)
    drawn = peak() - before
    assert drawn < 1.3 * share + 8 * MIB, f"{drawn / MIB:.0f} MiB to draw {share / MIB:.0f}"
    rows = layer.bias.to_local().shape[0]
    x = DTensor.from_local(
        torch.randn(2, 1, rows), mesh, [Shard(2)], shape=torch.Size((2, 1, POSITIONS)),
        stride=(POSITIONS, POSITIONS, 1),
    ).requires_grad_()  # fmt: skip
    samples = 4 * 2 * rows
    with lcmulti.config(max_workspace=WORKSPACE):
        forget()
        before = held()
        y = layer(x)
        forward = peak() - before
        # The result, and a copy of it while the borders are written.
        allowed = 3 * samples + WORKSPACE + 8 * MIB
        assert forward < allowed, f"{forward / MIB:.0f} MiB of {allowed / MIB:.0f}"
        forget()
        before = held()
        y.square().sum().backward()
        backward = peak() - before
    # Gradients of the weights, of x, of y and of its square, and one workspace.
    allowed = share + 7 * samples + WORKSPACE + 8 * MIB
    assert backward < allowed, f"{backward / MIB:.0f} MiB of {allowed / MIB:.0f}"


def checks(ranks):
    return {"a rank holds its share": check_a_rank_holds_its_share}
