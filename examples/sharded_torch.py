"""Train a layer of 20 million positions over two processes, or as many as torchrun starts.

    python examples/sharded_torch.py
    torchrun --nproc-per-node 2 examples/sharded_torch.py
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \
        examples/sharded_torch.py

Every position of a long signal has its own filter and bias: 80 million numbers, of which each
process draws, holds and trains its part. Of the signal, one row travels between neighbours.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile

import torch
import torch.distributed as dist
from lcmulti_torch import LocallyConnected1d
from lcmulti_torch.parallel import shard
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

import lcmulti

POSITIONS, TAPS = 20_000_000, 3


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    rank = dist.get_rank()

    layer = LocallyConnected1d(1, 1, TAPS, POSITIONS, padding="same", device="meta")
    shard(layer, mesh)  # drawn here, because no process ever has the whole
    mine = layer.weight.to_local()

    # This rank's part of a signal, of which no process has the whole either.
    part = torch.randn(1, 1, len(mine), device=device)
    whole = torch.Size((1, 1, POSITIONS))
    x = DTensor.from_local(
        part, mesh, [Shard(2)], shape=whole, stride=(POSITIONS, POSITIONS, 1), run_check=False
    )

    # A step of 0.05 at each position, of whose error the mean has one part in 20 million.
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05 * POSITIONS)
    for step in range(3):
        loss = (layer(x) - x).square().mean().full_tensor()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if rank == 0:
            print(f"step {step}: loss {loss.item():.4f}")

    held = sum(each.to_local().nbytes for each in layer.parameters())
    told = layer.spec.shard(mesh.size()).costs()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(
        f"rank {rank}: {len(mine):,} positions, weights {held / 2**20:.0f} MiB, sends "
        f"{told.halo} bytes a pass; the process took {peak:.0f} MiB at most"
    )
    same_as_one_process(layer, x, rank)


def same_as_one_process(layer: LocallyConnected1d, x: DTensor, rank: int) -> None:
    """Check that the last positions of each rank have the bits that one process computes."""
    with torch.no_grad():
        y = layer(x).to_local()
    if dist.get_world_size() == 1:
        return
    edges = [torch.empty(8, device=x.device) for _ in range(dist.get_world_size())]
    dist.all_gather(edges, x.to_local()[0, 0, :8].contiguous())
    if rank + 1 < dist.get_world_size():
        seen = torch.cat([x.to_local()[0, 0, -8:], edges[rank + 1][:1]])
        alone = lcmulti.local_conv(
            seen[None, :, None], layer.weight.to_local()[-7:], layer.bias.to_local()[-7:],
            data_format="channels_last",
        )  # fmt: skip
        assert torch.equal(alone[0, :, 0], y[0, 0, -7:])
        print(f"rank {rank}: equal to one process, to the bit")


def start(rank: int, ranks: int, store: str) -> None:
    dist.init_process_group("gloo", f"file://{store}/ranks", rank=rank, world_size=ranks)
    torch.set_num_threads(max(torch.get_num_threads() // ranks, 1))
    main()
    dist.destroy_process_group()


if __name__ == "__main__":
    if "RANK" in os.environ:  # started by torchrun
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group()
        main()
        dist.destroy_process_group()
    else:
        count = int(sys.argv[1]) if sys.argv[1:] else 2
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(start, (count, folder), nprocs=count)
