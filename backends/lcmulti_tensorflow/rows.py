"""The rows of patches in an input with the batch last, and the choice of blocks of them.

The padded input is a matrix of ``rows``. A row is one element of a sample, or, where patches allow
it, all channels of a pixel. Letters as in `lcmulti.composed`.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from lcmulti.algorithms.blocked import even
from lcmulti.dtypes import DTYPES
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import UNKNOWN_BATCH
from lcmulti_tensorflow.loops import new

BLOCK = 8 * 2**20
"""Bytes of a block on a CPU, by measurement; with smaller blocks, the loop itself costs time."""


class Rows(NamedTuple):
    """Row numbers of patches; those of own position ``u`` are ``start(u) + offsets + shared``.

    Parameters
    ----------
    padded : tuple of int
        Spatial sizes of the padded input.
    sizes, steps : tuple of int
        One entry per axis of ``U``: number of positions, and rows from one to the next.
    offsets : ndarray
        ``(G * k * C, 1)``, or ``(k, 1)`` where a row holds all channels.
    shared : ndarray
        ``(S,)``, offsets of the positions that share a kernel.
    total : int
        Number of rows of the padded input.
    """

    padded: tuple[int, ...]
    sizes: tuple[int, ...]
    steps: tuple[int, ...]
    offsets: np.ndarray
    shared: np.ndarray
    total: int

    @property
    def index_size(self) -> int:
        """Bytes of the row numbers of one position."""
        return int(self.offsets.size * self.shared.size * self.offsets.itemsize)

    def numbers(self, first: Any, count: Any) -> Any:
        """``(count * offsets.size * shared.size,)``, for *count* own positions from *first* on."""
        dtype = self.offsets.dtype
        position = tf.cast(first, dtype) + tf.range(count, dtype=dtype)
        # TensorFlow computes sums of constants ahead, and several copies of the numbers, each as
        # large as the patches, would stay in the graph. It does not know that these are zeros, and
        # does not add constants across a reshape.
        start = new((count,), dtype, zeros=True)
        for size, step in zip(reversed(self.sizes), reversed(self.steps), strict=True):
            start += position % size * step
            position //= size
        rows = start[:, None, None] + self.offsets
        if self.shared.size > 1:
            rows = tf.reshape(rows, (-1, 1)) + self.shared
        return tf.reshape(rows, (-1,))


@lru_cache(maxsize=1024)
def rows_of(spec: LocalConvSpec) -> Rows:
    """The rows of the patches of *spec*."""
    padded = spec.padded_size
    pixels = spec.groups == 1 and not spec.shared_axes  # a row holds all channels
    channels = 1 if pixels else spec.in_channels
    one = [channels * prod(padded[axis + 1 :]) for axis in range(spec.ndim)]
    step = [n * s for n, s in zip(one, spec.strides, strict=True)]
    own = [axis for axis in range(spec.ndim) if axis not in spec.shared_axes]
    taps = _grid(spec.kernel_size, [n * d for n, d in zip(one, spec.dilation, strict=True)])
    shared = _grid(
        [spec.output_size[axis] for axis in spec.shared_axes],
        [step[axis] for axis in spec.shared_axes],
    )
    channel = np.arange(channels).reshape(1 if pixels else spec.groups, 1, -1)
    offsets = (channel + taps[:, None]).reshape(-1, 1)
    count = channels * prod(padded)
    dtype = np.int32 if count < 2**31 else np.int64
    return Rows(
        padded,
        tuple(spec.output_size[axis] for axis in own),
        tuple(step[axis] for axis in own),
        offsets.astype(dtype),
        shared.astype(dtype),
        count,
    )


def _grid(sizes: Any, steps: Any) -> np.ndarray:
    """All sums of multiples of *steps*, in C order."""
    grid = np.zeros(1, np.int64)
    for size, step in zip(sizes, steps, strict=True):
        grid = np.add.outer(grid, np.arange(size) * step).ravel()
    return grid


class Grid(NamedTuple):
    """Samples and own positions in a block, and the bytes held while it is computed."""

    samples: int
    positions: int
    workspace: int


@lru_cache(maxsize=1024)
def grid_of(spec: LocalConvSpec, batch: int | None, dtype: str, device: str, limit: int) -> Grid:
    """Choose blocks that fit *limit*, if one sample does; on a CPU, that fit the cache as well.

    An unknown batch counts as a large one, whose blocks have few positions. They are not made to
    fit the cache as well, because with the few samples that are usual they do.
    """
    half, wide = DTYPES[dtype].is_half, DTYPES[DTYPES[dtype].accumulator].itemsize
    rows, own = rows_of(spec), prod(spec.positions_shape)
    shared = prod(spec.output_size) // own
    # Of one sample: input and output, each with the batch last and once more on the way there.
    sample = 2 * wide * (prod(rows.padded) * spec.in_channels + prod(spec.output_shape))
    # Of one position: a sample's patch and product; its row numbers, kernel and gradient.
    patch = wide * shared * (spec.terms * spec.groups + spec.filters)
    position = 2 * rows.index_size + 2 * wide * spec.terms * spec.filters
    fixed = 0
    whole = UNKNOWN_BATCH if batch is None else max(batch, 1)
    samples = fitting(limit - fixed - position, sample + patch, whole)
    if half and (batch is None or samples < whole):  # their kernel gradients are summed wide
        fixed += wide * prod(spec.kernel_shape)
        samples = fitting(limit - fixed - position, sample + patch, whole)
    block = samples * patch + position
    room = limit - fixed - samples * sample
    if device == "cpu" and batch is not None:
        room = min(room, BLOCK)
    most = fitting(room, block, own)
    positions = even(own, most)
    return Grid(samples, positions, fixed + samples * sample + positions * block)


def fitting(room: int, one: int, most: int) -> int:
    """How many of size *one* fit, at least one of them and no more than *most*."""
    return min(max(room // one, 1), most)
