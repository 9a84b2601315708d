"""Write weights to files that are on several devices, or on those of several processes."""

from __future__ import annotations

import jax
import numpy as np
from jax.experimental import multihost_utils

from lcmulti.weights.spread import Alone, Held

__all__ = ["held"]


class _AllProcesses:
    """`lcmulti.weights.spread.Processes` of `jax.distributed`."""

    def __init__(self) -> None:
        self.rank: int = jax.process_index()

    def tell(self, text: str) -> list[str]:
        """See `lcmulti.weights.spread.Processes.tell`."""
        told = np.frombuffer(text.encode(), np.uint8)
        sizes = np.ravel(multihost_utils.process_allgather(np.array([told.size], np.int32)))
        padded = np.zeros(max(int(sizes.max()), 1), np.uint8)
        padded[: told.size] = told
        rows = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(sizes), -1)
        return [bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)]


def held(array: jax.Array) -> Held | None:
    """The part of an array that this process writes; only the first of copies. None if traced."""
    if isinstance(array, jax.core.Tracer):
        return None
    pieces = []
    for shard in array.addressable_shards:
        if shard.replica_id or not shard.data.size:
            continue
        limits = [i.indices(n)[:2] for i, n in zip(shard.index, array.shape, strict=True)]
        box = tuple(slice(start, stop) for start, stop in limits)
        pieces.append((box, np.asarray(shard.data)))
    processes = Alone() if array.is_fully_addressable else _AllProcesses()
    return Held(array.dtype.name, array.shape, pieces, processes)
