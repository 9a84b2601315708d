"""Cosines of neighbouring filters: ``lcmulti_cosines`` of the C library."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from lcmulti.operations.neighbours import Link
from lcmulti.plugins.contract import Resources
from lcmulti.types import Array
from lcmulti_native.library import DTYPES, library, require_done

SUMS, SLOPES = 0, 1


class Cosines:
    """The maps of `lcmulti.operations.neighbours.CosineMaps`, in all doors."""

    def cosine_sums(
        self, kernel: Array, bias: Array, links: tuple[Link, ...], resources: Resources
    ) -> Any:
        """See `lcmulti.operations.neighbours.CosineMaps`."""
        return self.run_cosines(SUMS, kernel, bias, links, resources)

    def cosine_slopes(
        self, array: Array, sums: Array, links: tuple[Link, ...], resources: Resources
    ) -> Any:
        """See `lcmulti.operations.neighbours.CosineMaps`."""
        return self.run_cosines(SLOPES, array, sums, links, resources)

    def run_cosines(
        self, map_: int, a: Array, b: Array, links: tuple[Link, ...], resources: Resources
    ) -> Any:
        """Compute one of these two; each door does this in the way of its framework."""
        raise NotImplementedError


@lru_cache(maxsize=1024)
def cosine_call(
    map_: int, shape: tuple[int, ...], dtype: str, threads: int | None, links: tuple[Link, ...]
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The integers that describe a call, for a kernel of this shape."""
    own, filters = (shape[0], shape[1]), shape[-1]
    sizes = *own, prod(shape[2:-1]), filters
    call = [map_, DTYPES.index(dtype), threads or 0, *sizes, len(links)]
    for link in links:
        first, second = link.pair(own)
        *positions, (start, stop, step) = first
        run = range(start, stop, step)
        # Also filters between those of a run have a place, and no weight.
        weights = np.zeros(run[-1] + 1 - start)
        weights[[run[i] - start for i in link.chosen]] = link.weight_of(own)
        ends = [end for low, high, _ in positions for end in (low, high)]
        moves = [b[0] - a[0] for a, b in zip(first, second, strict=True)]
        call += [*ends, *moves[:2], start, moves[2], len(weights), *weights.view(np.int64).tolist()]
    return np.array(call, np.int64)


def compute_cosines(
    call: np.ndarray[Any, np.dtype[np.int64]],
    a: int,
    b: int,
    result: int,
    parallel: int | None = None,
) -> None:
    """Run a `cosine_call` on three addresses."""
    where = call.ctypes.data
    require_done(library().lcmulti_cosines(parallel, where, len(call), a, b, result))
