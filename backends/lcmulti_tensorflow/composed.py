"""TensorFlow's spelling of `lcmulti.composed.ArrayOps`, and ``composed`` itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import prod
from typing import Any

import tensorflow as tf

from lcmulti.algorithms.composed import Composed
from lcmulti.dtypes import DTYPES
from lcmulti.errors import UnsupportedError

MOST_TRANSPOSED = 6
"""Axes that LiteRT transposes."""
MOST_AXES = 8
"""Axes that TensorFlow's kernels for slices and padding take."""


class TensorFlowOps:
    """`lcmulti.composed.ArrayOps` for TensorFlow, eager and symbolic."""

    def reshape(self, array: Any, shape: tuple[int, ...]) -> Any:
        """See `ArrayOps`."""
        return tf.reshape(array, shape)

    def permute(self, array: Any, axes: tuple[int, ...]) -> Any:
        """See `ArrayOps`."""
        if axes == tuple(range(len(axes))):
            return array
        if len(axes) <= MOST_TRANSPOSED or list(array.shape).count(None) > 1:
            return tf.transpose(array, axes)
        return _transposed_in_runs(array, axes)

    def stack(self, arrays: list[Any], axis: int) -> Any:
        """See `ArrayOps`."""
        return tf.stack(arrays, axis)

    def pad(self, array: Any, pairs: tuple[tuple[int, int], ...]) -> Any:
        """See `ArrayOps`."""
        if array.shape.rank <= MOST_AXES:
            return tf.pad(array, pairs) if any(map(any, pairs)) else array
        for axis, pair in enumerate(pairs):
            if any(pair):
                only = ((0, 0), pair, (0, 0))
                array = _along(axis, array, lambda part, only=only: tf.pad(part, only))
        return array

    def matmul(self, a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False) -> Any:
        """See `ArrayOps`."""
        return tf.matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b)

    def widen(self, array: Any) -> Any:
        """See `ArrayOps`."""
        return tf.cast(array, DTYPES[array.dtype.name].accumulator)

    def narrow(self, array: Any, like: Any) -> Any:
        """See `ArrayOps`."""
        return tf.cast(array, like.dtype)


@cache
def has_gpu() -> bool:
    """Whether a tensor may be on a GPU."""
    return bool(tf.config.list_logical_devices("GPU"))


def device_of(array: Any) -> str:
    """``"cpu"`` or ``"gpu"``; a symbolic tensor that is not placed yet will be on a GPU if any."""
    placed = array.device
    return "gpu" if ("GPU" in placed if placed else has_gpu()) else "cpu"


def refuse_rounding(array: Any) -> None:
    """Raise where the GPU would round the float32 of *array* to TensorFloat-32.

    That is a switch of the process; asked at every call, for it may be turned.

    Raises
    ------
    UnsupportedError
        With the command that forbids it.
    """
    if not has_gpu() or array.dtype not in (tf.float32, tf.complex64) or device_of(array) != "gpu":
        return
    if tf.config.experimental.tensor_float_32_execution_enabled():
        raise UnsupportedError(
            f"TensorFlow would round {array.dtype.name} to TensorFloat-32 on this GPU; call "
            "tf.config.experimental.enable_tensor_float_32_execution(False)"
        )


def _transposed_in_runs(array: Any, axes: tuple[int, ...]) -> Any:
    """`tf.transpose` with axes that stay neighbours taken as one; one size may be unknown."""
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


def _along(axis: int, array: Any, function: Callable[[Any], Any]) -> Any:
    """Apply *function* to an axis, with those before and those behind it taken as one each."""
    before, after = array.shape[1:axis], array.shape[axis + 1 :]
    part = function(tf.reshape(array, (-1, array.shape[axis], prod(after))))
    return tf.reshape(part, (-1, *before, part.shape[1], *after))


class TensorFlowComposed(Composed):
    """`Composed` where TensorFlow slices and pads no more than eight axes at once."""

    def cut(self, array: Any, index: tuple[slice, ...]) -> Any:
        """See `Composed.cut`."""
        if array.shape.rank <= MOST_AXES:
            return array[index]
        for axis, each in enumerate(index):
            if each != slice(None):
                array = _along(axis, array, lambda part, each=each: part[:, each])
        return array


ops = TensorFlowOps()
composed = TensorFlowComposed(ops)
