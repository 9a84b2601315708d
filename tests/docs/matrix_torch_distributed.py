"""Run the cells about DDP, FSDP and DTensor on two processes.

Prints ``{row: {column: error or None}}`` as JSON.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
import traceback
import warnings

import torch
import torch.distributed as dist
from helpers_traffic import POINT_TO_POINT, Traffic
from matrix_torch_examples import MODULES, gradients, make
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

import lcmulti

WORLD = 2


def expected(example):
    """Return the gradients of the mean loss over processes, each with its part of the batch."""
    parts = example.x[:4].chunk(WORLD)
    loss = sum(example.loss(part) for part in parts) / WORLD
    return torch.autograd.grad(loss, list(example.module.parameters()))


def ddp(example, rank, mesh):
    wanted = expected(example)
    module = DistributedDataParallel(copy.deepcopy(example.module))
    module(example.x[:4].chunk(WORLD)[rank]).square().sum().backward()
    torch.testing.assert_close(
        [p.grad for p in module.parameters()], list(wanted), rtol=1e-4, atol=1e-4
    )


def network(example):
    """Build a network from the example, with layers that change results in place."""
    y = example.module(example.x)
    return nn.Sequential(
        copy.deepcopy(example.module), nn.ReLU(inplace=True), nn.Flatten(),
        nn.Linear(y[0].numel(), 3), nn.ReLU(inplace=True),
    )  # fmt: skip


def steps(model, x):
    """Train *model* for three steps and return it."""
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(3):
        optimizer.zero_grad()
        (model(x).square().sum() / len(x)).backward()
        optimizer.step()
    return model


def trained(example):
    """Return a network, and its weights after one process trained it on the whole batch."""
    torch.manual_seed(0)
    model = network(example)
    plain = steps(copy.deepcopy(model), example.x[:4])
    return model, {name: each.detach() for name, each in plain.named_parameters()}


def fsdp1(example, rank, mesh):
    """FSDP1 shards each layer, and then the rest of the model."""
    model, wanted = trained(example)
    cpu = torch.device("cpu")
    for i in (0, 3):
        model[i] = FullyShardedDataParallel(model[i], device_id=cpu, use_orig_params=True)
    model = FullyShardedDataParallel(model, device_id=cpu, use_orig_params=True)
    steps(model, example.x[:4].chunk(WORLD)[rank])
    with FullyShardedDataParallel.summon_full_params(model):
        found = {
            name.replace("_fsdp_wrapped_module.", ""): each.detach().clone()
            for name, each in model.named_parameters()
        }
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def fsdp2(example, rank, mesh):
    """FSDP2 frees weights after the forward pass and gathers them for the backward pass."""
    model, wanted = trained(example)
    for each in (model[0], model[3], model):
        fully_shard(each, mesh=mesh, reshard_after_forward=True)
    assert all(isinstance(p, DTensor) for p in model.parameters())
    steps(model, example.x[:4].chunk(WORLD)[rank])
    found = {name: each.full_tensor() for name, each in model.named_parameters()}
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def dtensor(example, rank, mesh):
    """Divide the batch, then weights and input by rows. Only halos are sent."""
    y, wanted = gradients(example.module, example)
    for place in (Shard(0), Shard(2)):
        module = copy.deepcopy(example.module)
        for name, each in list(module.named_parameters()):
            rows = place == Shard(2) and each.shape[0] > 2  # a basis of two kernels is replicated
            placed = distribute_tensor(each.data, mesh, [Shard(0) if rows else Replicate()])
            setattr(module, name, torch.nn.Parameter(placed))
        x = distribute_tensor(example.x, mesh, [place]).requires_grad_()
        with Traffic() as traffic:
            found = module(x)
            grads = torch.autograd.grad(found.square().sum(), [x, *module.parameters()])
        assert found.placements == (place,)
        for grad, of in zip(grads, [x, *module.parameters()], strict=True):
            assert grad.placements in (of.placements, (Partial(),))
        spec = getattr(module, "spec", None) or lcmulti.LocalConvSpec(
            (3, 7, 6), 4, (2, 3), data_format="channels_first"
        )
        halo = spec.shard((WORLD, 1)).costs(len(example.x)).halo if place == Shard(2) else 0
        assert traffic.bytes <= 2 * halo, (traffic.bytes, halo)
        assert traffic.calls <= POINT_TO_POINT, traffic.calls
        torch.testing.assert_close(found.full_tensor(), y, rtol=1e-4, atol=1e-4)
        full = [each.full_tensor() for each in grads[1:]]
        torch.testing.assert_close(full, list(wanted), rtol=1e-4, atol=1e-4)


COLUMNS = {"DDP": ddp, "FSDP1": fsdp1, "FSDP2": fsdp2, "DTensor": dtensor}


def work(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=WORLD)
    torch.set_num_threads(1)
    mesh = init_device_mesh("cpu", (WORLD,))
    warnings.filterwarnings("error", ".*view")  # PyTorch warns where a result is a view
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
