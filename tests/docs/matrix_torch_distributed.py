"""DDP, FSDP2 and DTensor on two processes; prints ``{row: {column: error or None}}`` as JSON."""

from __future__ import annotations

import copy
import json
import sys
import tempfile
import traceback

import torch
import torch.distributed as dist
from matrix_torch import MODULES, gradients, make
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

WORLD = 2


def expected(subject):
    """Gradients of the mean over processes of each one's part of the batch."""
    parts = subject.x[:4].chunk(WORLD)
    loss = sum(subject.loss(part) for part in parts) / WORLD
    return torch.autograd.grad(loss, list(subject.module.parameters()))


def ddp(subject, rank, mesh):
    wanted = expected(subject)
    module = DistributedDataParallel(copy.deepcopy(subject.module))
    module(subject.x[:4].chunk(WORLD)[rank]).square().sum().backward()
    torch.testing.assert_close(
        [p.grad for p in module.parameters()], list(wanted), rtol=1e-4, atol=1e-4
    )


def fsdp2(subject, rank, mesh):
    wanted = expected(subject)
    module = copy.deepcopy(subject.module)
    fully_shard(module, mesh=mesh)
    assert all(isinstance(p, DTensor) for p in module.parameters())
    module(subject.x[:4].chunk(WORLD)[rank]).square().sum().backward()
    found = [p.grad.full_tensor() for p in module.parameters()]
    torch.testing.assert_close(found, list(wanted), rtol=1e-4, atol=1e-4)


def dtensor(subject, rank, mesh):
    """The batch sharded, then the weights over output rows."""
    y, wanted = gradients(subject.module, subject)
    for batch in (Shard(0), Replicate()):
        module = copy.deepcopy(subject.module)
        for name, each in list(module.named_parameters()):
            rows = each.shape[0] % WORLD == 0 and batch == Replicate()
            placed = distribute_tensor(each.data, mesh, [Shard(0) if rows else Replicate()])
            setattr(module, name, torch.nn.Parameter(placed))
        x = distribute_tensor(subject.x, mesh, [batch])
        found = module(x)
        assert isinstance(found, DTensor)
        grads = torch.autograd.grad(found.square().sum(), list(module.parameters()))
        torch.testing.assert_close(found.full_tensor(), y, rtol=1e-4, atol=1e-4)
        full = [each.full_tensor() for each in grads]
        torch.testing.assert_close(full, list(wanted), rtol=1e-4, atol=1e-4)


COLUMNS = {"DDP": ddp, "FSDP2": fsdp2, "DTensor": dtensor}


def work(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=WORLD)
    torch.set_num_threads(1)
    mesh = init_device_mesh("cpu", (WORLD,))
    found = {}
    for row in MODULES:
        for column, check in COLUMNS.items():
            try:
                check(make(row), rank, mesh)
                error = None
            except Exception:
                error = traceback.format_exc()[-1500:]
            found.setdefault(row, {})[column] = error
    dist.barrier()
    dist.destroy_process_group()
    if rank == 0:
        with open(f"{folder}/found", "w") as file:  # noqa: PTH123
            json.dump(found, file)


def main():
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(work, (folder,), nprocs=WORLD)
        with open(f"{folder}/found") as file:  # noqa: PTH123
            print(json.dumps(json.load(file)))


if __name__ == "__main__":
    sys.exit(main())
