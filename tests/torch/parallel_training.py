"""Layers over ranks in training, with DDP, FSDP, checkpointing, autocast and compilers.

Three steps must change the weights as three steps of the whole model do.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext

import lcmulti_torch as lt
import torch
import torch.distributed as dist
from lcmulti_torch.parallel import PositionwiseParallel, shard
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import parallelize_module
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

STEPS, BATCH = 3, 4
CLOSE = dict(rtol=2e-4, atol=2e-6)
HALF = dict(rtol=4e-2, atol=2e-4)  # bfloat16 rounds each term to 8 bits


def network(rows=11):
    """Return a layer and a transposed one. Ranks cannot have equal shares of eleven rows."""
    return nn.Sequential(
        lt.LocallyConnected2d(3, 4, 3, (rows, 6), padding=1, padding_mode="circular"), nn.ReLU(),
        lt.LocallyConnectedTranspose2d(
            4, 2, 3, (rows, 6), stride=2, padding=1, output_padding=1
        ),
    )  # fmt: skip


def trained(model, around=nullcontext, own=lambda x: x, rows=11):
    """Train *model* for three steps and return it.

    *own* takes from a batch what this rank gives to the model.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    torch.manual_seed(11)  # the same on every rank
    for x in torch.randn(STEPS, BATCH, 3, rows, 6):
        optimizer.zero_grad()
        with around():
            y = model(own(x))
        loss = y.float().square().sum() / len(y)  # DDP and FSDP take the mean over copies
        loss.backward()
        optimizer.step()
    return model


def require_alike(model, start, whole, close=CLOSE):
    """Training has changed *model* as it has changed *whole*; both were equal to *start*."""
    for (name, mine), before, right in zip(
        model.named_parameters(), start.parameters(), whole.parameters(), strict=True
    ):
        found = mine.full_tensor() if isinstance(mine, DTensor) else mine
        assert not torch.equal(right, before), name
        torch.testing.assert_close(found - before, right - before, **close, msg=name)


def over_all(**options):
    """Return a network, a copy divided over all ranks, and what divides a batch for the copy."""
    start = network()
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model = copy.deepcopy(start)
    for at in (0, 2):
        shard(model[at], mesh, **options)
    return start, model, lambda x: distribute_tensor(x, mesh, [Shard(2)])


def check_plain(rank):
    start, model, own = over_all()
    require_alike(trained(model, own=own), start, trained(copy.deepcopy(start)))


def check_parallelize_module(rank):
    start, mesh = network(), init_device_mesh("cpu", (dist.get_world_size(),))
    model = copy.deepcopy(start)
    layouts = {
        "0": PositionwiseParallel(output_layouts=Shard(2)),
        "2": PositionwiseParallel(input_layouts=Shard(2), output_layouts=Replicate()),
    }
    parallelize_module(model, mesh, layouts)
    require_alike(trained(model), start, trained(copy.deepcopy(start)))


def check_checkpointed(rank):
    start, model, own = over_all()

    class Checkpointed(nn.Sequential):
        def forward(self, x):
            return checkpoint(super().forward, x, use_reentrant=False)

    model = trained(Checkpointed(*model), own=own)
    require_alike(model, start, trained(copy.deepcopy(start)))


def check_autocast(rank):
    def around():
        return torch.autocast("cpu", dtype=torch.bfloat16)

    start, model, own = over_all()
    whole = trained(copy.deepcopy(start), around)
    require_alike(trained(model, around, own), start, whole, HALF)


def check_compiled(rank):
    start, model, own = over_all()
    compiled = torch.compile(model, backend="aot_eager")
    trained(compiled, own=own)
    require_alike(model, start, trained(copy.deepcopy(start)))


def two_by_two():
    return init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "rows"))


def over_rows(mesh, **size):
    """Return a network, a copy divided over ``mesh["rows"]``, and what takes its samples."""
    start = network(**size)
    model = copy.deepcopy(start)
    shard(model[0], mesh["rows"], output_layouts=Shard(2), use_local_output=True)
    shard(model[2], mesh["rows"], input_layouts=Shard(2), output_layouts=Replicate(),
          use_local_output=True)  # fmt: skip
    return start, model, lambda x: x.chunk(2)[mesh.get_local_rank("data")]


def check_ddp(rank):
    """Train two copies, each over two ranks. Gradients are means over the copies."""
    mesh = two_by_two()
    start, model, own = over_rows(mesh)
    copies = DistributedDataParallel(model, device_mesh=mesh["data"])
    mine = dict(model.named_parameters())  # DDP made them plain, and hides them in forward passes
    trained(copies, own=own)
    whole, at = trained(copy.deepcopy(start)), mesh.get_local_rank("rows")
    for name, before in start.named_parameters():
        had, right = (each.chunk(2)[at] for each in (before, whole.get_parameter(name)))
        torch.testing.assert_close(mine[name] - had, right - had, **CLOSE, msg=name)


def check_fsdp(rank):
    """FSDP2 divides the share that a rank has of a layer once more, over the copies."""
    mesh, size = two_by_two(), dict(rows=12)  # PyTorch asks that both dimensions divide the rows
    start, model, own = over_rows(mesh, **size)
    for at in (0, 2):
        fully_shard(model[at], mesh=mesh["data"])
    fully_shard(model, mesh=mesh["data"])
    assert model[0].weight.to_local().numel() * 4 == start[0].weight.numel()
    trained(model, own=own, **size)
    require_alike(model, start, trained(copy.deepcopy(start), **size))


def check_batch_over_ranks_too(rank):
    """Train copies without DDP: the first dimension of the mesh divides the batch."""
    mesh, start = two_by_two(), network()
    model = copy.deepcopy(start)
    for at in (0, 2):
        shard(model[at], mesh, (None, 0))
    trained(model, own=lambda x: distribute_tensor(x, mesh, [Shard(0), Shard(2)]))
    require_alike(model, start, trained(copy.deepcopy(start)))


def checks(ranks):
    return {
        f"trained: {name[6:].replace('_', ' ')}": check
        for name, check in globals().items()
        if name.startswith("check_")
    }
