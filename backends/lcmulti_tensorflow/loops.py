"""Loops over blocks, with a graph of constant size, that write into the tensor they carry."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

import tensorflow as tf

from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Resources

Number: TypeAlias = int | tf.Tensor
"""An int, or a scalar tensor where it is not known yet."""

Body: TypeAlias = Callable[[tf.Tensor, Number, Number], tf.Tensor]
"""``(carry, first, count) -> carry``."""


@lru_cache(maxsize=1024)
def _traced(function: Any, spec: LocalConvSpec, resources: Resources, eager: bool) -> Any:
    def mapped(a: tf.Tensor, b: tf.Tensor) -> Any:
        return function(a, b, spec, resources)

    return tf.function(mapped, autograph=False) if eager else mapped


def in_graph(function: Any, spec: LocalConvSpec, resources: Resources) -> Any:
    """The function as a graph: an eager loop would cost more than its operations."""
    return _traced(function, spec, resources, tf.executing_eagerly())


def by_samples(
    function: Callable[[tf.Tensor], tf.Tensor], array: tf.Tensor, shape: tuple[int, ...], block: int
) -> tf.Tensor:
    """Apply *function* to *block* samples at a time, and join the results."""
    total = size(array, 0)
    if isinstance(total, int) and 0 < total <= block:
        return function(array)

    def samples(carry: tf.Tensor, first: Number, count: Number) -> tf.Tensor:
        return put(carry, first, function(slice_of(array, first, count)))

    return over(total, block, samples, new((total, *shape), array.dtype))


def over(total: tf.Tensor, block: tf.Tensor, body: Body, carry: tf.Tensor) -> tf.Tensor:
    """Carry a tensor through ``body(carry, first, count)`` over blocks that cover *total*.

    *total* is an int, or a scalar tensor where it is not known yet.
    """
    known = isinstance(total, int)
    if not known:  # XLA checks the size of a block even if the loop has no iteration
        block = tf.maximum(tf.minimum(block, total), 1)
    full = total // block
    if not known or full > 1:
        _, carry = tf.while_loop(
            lambda turn, _: turn < full,
            lambda turn, carry: (turn + 1, body(carry, turn * block, block)),
            (tf.constant(0), carry),
            parallel_iterations=1,
        )
    elif full:
        carry = body(carry, 0, block)
    rest = total - full * block
    if not known:
        # XLA also checks the branch that is not taken, in which the block must not be empty.
        first, count = tf.maximum(tf.minimum(full * block, total - 1), 0), tf.maximum(rest, 1)
        return tf.cond(rest > 0, lambda: body(carry, first, count), lambda: carry)
    return body(carry, full * block, rest) if rest else carry


def size(array: tf.Tensor, axis: int) -> Number:
    """The size of an axis; an int if it is known."""
    known = array.shape[axis]
    return tf.shape(array)[axis] if known is None else known


def slice_of(array: tf.Tensor, first: Number, count: Number) -> tf.Tensor:
    """``array[first : first + count]``, with a static size if *count* is static."""
    if isinstance(count, int) and count == array.shape[0]:
        return array
    rank = array.shape.rank
    sizes = [size(array, axis) for axis in range(1, rank)]
    return tf.slice(array, [first] + [0] * (rank - 1), [count, *sizes])


def new(shape: tuple[Number, ...], dtype: tf.DType, zeros: bool = False) -> tf.Tensor:
    """A new tensor that only `put` and `add` use; never a folded constant."""
    return tf.raw_ops.Empty(shape=shape, dtype=dtype, init=zeros)


def put(carry: tf.Tensor, first: Number, part: tf.Tensor) -> tf.Tensor:
    """*carry*, with its elements from *first* on replaced by *part*."""
    index = first + tf.range(size(part, 0))
    return _on_cpu_or_not(
        lambda: tf.raw_ops.InplaceUpdate(x=carry, i=index, v=part),
        lambda: tf.tensor_scatter_nd_update(carry, index[:, None], part),
    )


def add(carry: tf.Tensor, index: tf.Tensor, part: tf.Tensor) -> tf.Tensor:
    """*carry*, with *part* added to the elements *index*, which may repeat."""
    return _on_cpu_or_not(
        lambda: tf.raw_ops.InplaceAdd(x=carry, i=index, v=part),
        lambda: tf.tensor_scatter_nd_add(carry, index[:, None], part),
    )


def _on_cpu_or_not(cpu: Callable[[], tf.Tensor], other: Callable[[], tf.Tensor]) -> tf.Tensor:
    # TensorFlow copies the whole carried tensor for each scatter, unless it is told that nobody
    # else uses it. XLA finds out by itself, and does not have this operation. Which of the two will
    # run is unknown until the graph is placed. TensorFlow's own RNNs choose in the same way.
    return tf.switch_case(tf.raw_ops.DeviceIndex(device_names=["CPU"]), [cpu, other])
