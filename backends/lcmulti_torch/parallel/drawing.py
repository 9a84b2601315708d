"""Random weights of a DTensor. They are the same for any number of ranks.

Each element is a function of a seed and of its place in the whole tensor (Philox, a counter-based
generator: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). So each rank draws
only its own elements.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import Replicate, Shard

from lcmulti.errors import ArgumentTypeError, described

__all__ = ["place_of", "seed_of", "uniform_"]

PIECE = 2**16
"""Number of elements that are drawn at once."""

WORDS = 4
"""Words of 64 bits in one step of Philox."""


def uniform_(tensor: Tensor, bound: float) -> None:
    """Fill a DTensor in place with numbers from ``[-bound, bound)``.

    Parameters
    ----------
    tensor : DTensor
        It may be replicated, or divided along any dimensions.
    bound : float

    Raises
    ------
    ArgumentTypeError
        If a rank's part is not a box of the whole.
    """
    seed = seed_of(tensor)
    with torch.no_grad():
        local = tensor.to_local()
        if local.is_meta or not local.numel():
            return
        whole, part = tuple(tensor.shape), tuple(local.shape)
        # The part is contiguous in the whole along the last dimensions that are here in full, and
        # along one more.
        dim = next(d for d in range(len(part)) if part[d + 1 :] == whole[d + 1 :])
        run = prod(part[dim:])
        rows = local.view(-1, run)
        for row, first in zip(rows, _firsts(whole, part, place_of(tensor), dim), strict=True):
            for at in range(0, run, PIECE):
                piece = row[at : at + PIECE]
                drawn = torch.from_numpy(_drawn(seed, first + at, len(piece)))
                piece.copy_(drawn.mul_(2 * bound).sub_(bound))


def _firsts(
    whole: tuple[int, ...], local: tuple[int, ...], start: tuple[int, ...], dim: int
) -> Iterator[int]:
    """Where each contiguous run of a part begins in the whole; one for each index before *dim*."""
    steps = [prod(whole[each + 1 :]) for each in range(len(whole))]
    for index in product(*map(range, local[:dim])):
        places = [at + i for at, i in zip(start, index, strict=False)] + [start[dim]]
        yield sum(place * step for place, step in zip(places, steps, strict=False))


def _drawn(seed: int, first: int, count: int) -> np.ndarray:
    """Elements *first* to ``first + count`` of an endless sequence in ``[0, 1)``, as float64."""
    step, skipped = divmod(first, WORDS)
    words = np.random.Philox(key=seed, counter=step).random_raw(skipped + count)[skipped:]
    return (words >> np.uint64(11)) * 2.0**-53


def seed_of(tensor: Tensor) -> int:
    """A seed from PyTorch's default generator; all ranks use that of the mesh's first rank."""
    mesh = tensor.device_mesh
    seed = torch.randint(2**62, (1,), dtype=torch.int64).to(mesh.device_type)
    for along in range(mesh.ndim):
        group = mesh.get_group(along)
        dist.broadcast(seed, group=group, group_src=0)
    return int(seed)


def place_of(tensor: Tensor) -> tuple[int, ...]:
    """Where this rank's part, a box, begins in the whole tensor."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    for each in tensor.placements:
        if type(each) not in (Shard, Replicate) and type(each).__name__ != "_StridedShard":
            shown = described(f"placed {tensor.placements}")
            raise ArgumentTypeError("tensor", "a DTensor divided or replicated", shown)
    _, start = compute_local_shape_and_global_offset(
        tensor.shape, tensor.device_mesh, tensor.placements
    )
    return tuple(start)
