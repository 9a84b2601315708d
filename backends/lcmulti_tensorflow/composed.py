"""`lcmulti.composed.ArrayOps` for TensorFlow, and ``composed`` itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import tensorflow as tf

from lcmulti.algorithms.composed import Composed
from lcmulti.dtypes import DTYPES

MOST_TRANSPOSED = 6
"""Largest number of axes that LiteRT can transpose."""
MOST_AXES = 8
"""Largest number of axes that TensorFlow can slice and pad."""


class TensorFlowOps:
    """`lcmulti.composed.ArrayOps` for TensorFlow, eager and symbolic."""

    def reshape(self, array: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
        """See `ArrayOps`."""
        return tf.reshape(array, shape)

    def permute(self, array: tf.Tensor, axes: tuple[int, ...]) -> tf.Tensor:
        """See `ArrayOps`."""
        if axes == tuple(range(len(axes))):
            return array
        if len(axes) <= MOST_TRANSPOSED or list(array.shape).count(None) > 1:
            return tf.transpose(array, axes)
        return _transposed_in_runs(array, axes)

    def stack(self, arrays: list[tf.Tensor], axis: int) -> tf.Tensor:
        """See `ArrayOps`."""
        return tf.stack(arrays, axis)

    def pad(self, array: tf.Tensor, pairs: tuple[tuple[int, int], ...]) -> tf.Tensor:
        """See `ArrayOps`."""
        if array.shape.rank <= MOST_AXES:
            return tf.pad(array, pairs) if any(map(any, pairs)) else array
        for axis, pair in enumerate(pairs):
            if any(pair):
                only = ((0, 0), pair, (0, 0))
                array = _along(axis, array, partial(tf.pad, paddings=only))
        return array

    def matmul(
        self, a: tf.Tensor, b: tf.Tensor, transpose_a: bool = False, transpose_b: bool = False
    ) -> tf.Tensor:
        """See `ArrayOps`."""
        if a.shape[0] == b.shape[0] == 1:
            # In `tf.vectorized_map`, TensorFlow 2.21 crashes on a transposed stack of one.
            return tf.matmul(a[0], b[0], transpose_a=transpose_a, transpose_b=transpose_b)[None]
        return tf.matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b)

    def widen(self, array: tf.Tensor) -> tf.Tensor:
        """See `ArrayOps`."""
        return tf.cast(array, DTYPES[array.dtype.name].accumulator)

    def narrow(self, array: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
        """See `ArrayOps`."""
        return tf.cast(array, like.dtype)


def _transposed_in_runs(array: tf.Tensor, axes: tuple[int, ...]) -> tf.Tensor:
    """`tf.transpose` that merges axes which stay adjacent; one size may be unknown."""
    runs: list[list[int]] = []
    for axis in axes:
        if runs and axis == runs[-1][-1] + 1:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    ordered = sorted(runs)
    shape = [-1 if size is None else size for size in array.shape]
    sizes = [-1 if -1 in (run := [shape[i] for i in each]) else prod(run) for each in ordered]
    moved = tf.transpose(tf.reshape(array, sizes), [ordered.index(run) for run in runs])
    return tf.reshape(moved, [shape[axis] for axis in axes])


def _middle(part: tf.Tensor, index: slice) -> tf.Tensor:
    return part[:, index]


def _along(axis: int, array: tf.Tensor, function: Callable[[Any], Any]) -> tf.Tensor:
    """Apply *function* along an axis, with all axes before it, and all behind it, merged."""
    before, after = array.shape[1:axis], array.shape[axis + 1 :]
    part = function(tf.reshape(array, (-1, array.shape[axis], prod(after))))
    return tf.reshape(part, (-1, *before, part.shape[1], *after))


class TensorFlowComposed(Composed):
    """`Composed` for TensorFlow, which slices and pads at most eight axes at once."""

    def cut(self, array: tf.Tensor, index: tuple[slice, ...]) -> tf.Tensor:
        """See `Composed.cut`."""
        if array.shape.rank <= MOST_AXES:
            return array[index]
        for axis, each in enumerate(index):
            if each != slice(None):
                array = _along(axis, array, partial(_middle, index=each))
        return array


ops = TensorFlowOps()
composed = TensorFlowComposed(ops)
