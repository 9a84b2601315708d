"""Bounded memory: patches of a few output positions at a time, in a loop of constant graph size.

The input is laid out once with the batch last. A tap of a window is then a long row, patches
are a gather of rows and their adjoint a scatter of rows, whatever the strides and dilation.
Positions are walked in one flat order by a `tf.while_loop`, and what is left over after it.
Results are scattered into a tensor that the loop carries, which TensorFlow and XLA do in place.
Where copies of all samples would be too large, the samples are cut in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any

import tensorflow as tf

from lcmulti.backend import Problem, Resources
from lcmulti.composed import Composed
from lcmulti.dtypes import DTYPES
from lcmulti.spec import LocalConvSpec
from lcmulti_tensorflow.ops import device_of, ops
from lcmulti_tensorflow.rows import Cut, cut, rows_of


class Blocked(Composed):
    """`lcmulti.backend.Implementation`; letters as in `lcmulti.composed`."""

    def workspace(self, problem: Problem) -> int:
        """See `lcmulti_tensorflow.rows.cut`."""
        spec, batch, dtype, device, _, resources = problem
        return cut(spec, batch, dtype, device, resources.max_workspace).workspace

    def forward(self, x: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `lcmulti.backend.Implementation.forward`."""
        return _in_graph(_forward, spec, resources)(x, kernel)

    def input_grad(self, dy: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `lcmulti.backend.Implementation.input_grad`."""
        return _in_graph(_input_grad, spec, resources)(dy, kernel)

    def kernel_grad(self, x: Any, dy: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `lcmulti.backend.Implementation.kernel_grad`."""
        return _in_graph(_kernel_grad, spec, resources)(x, dy)


@lru_cache(maxsize=1024)
def _traced(function: Any, spec: LocalConvSpec, resources: Resources, eager: bool) -> Any:
    def mapped(a: Any, b: Any) -> Any:
        return function(a, b, spec, resources)

    return tf.function(mapped, autograph=False) if eager else mapped


def _in_graph(function: Any, spec: LocalConvSpec, resources: Resources) -> Any:
    """The function as a graph: op by op, an eager loop costs more than what it computes."""
    return _traced(function, spec, resources, tf.executing_eagerly())


def _forward(x: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
    blocks, kernel = _blocks(x, spec, resources), _by_own(kernel, spec)

    def samples(x: Any) -> Any:
        rows = _rows(x, spec)

        def block(y: Any, first: Any, count: Any) -> Any:
            kernels = _kernels(kernel, first, count, spec)
            part = tf.matmul(_patches(rows, first, count, spec), kernels, transpose_a=True)
            return _put(y, first * spec.groups, tf.cast(part, y.dtype))

        columns = _size(x, 0) * prod(spec.output_size) // prod(spec.positions_shape)
        matrices = prod(spec.positions_shape) * spec.groups
        y = _new((matrices, columns, spec.filters // spec.groups), x.dtype)
        y = _over(prod(spec.positions_shape), blocks.positions, block, y)
        return layout._by_sample(y, (), spec.filters, spec)

    return _by_samples(samples, x, (*spec.output_size, spec.filters), blocks)


def _input_grad(dy: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
    blocks, kernel = _blocks(dy, spec, resources), _by_own(kernel, spec)

    def samples(dy: Any) -> Any:
        matrices = layout._by_position(dy, (), spec)
        where = rows_of(spec)
        per_row = prod(where.padded) * spec.in_channels // where.count

        def block(dx: Any, first: Any, count: Any) -> Any:
            part = _slice(matrices, first * spec.groups, count * spec.groups)
            patches = tf.matmul(_kernels(kernel, first, count, spec), part, transpose_b=True)
            patches = tf.reshape(patches, (-1, _size(dx, 1)))
            index = where.index(first, count)
            return _add(dx, index, patches)

        dx = _new((where.count, per_row * _size(dy, 0)), matrices.dtype, zeros=True)
        dx = _over(prod(spec.positions_shape), blocks.positions, block, dx)
        dx = tf.reshape(dx, (*where.padded, spec.in_channels, _size(dy, 0)))
        dx = tf.transpose(dx[spec.inner], (spec.ndim + 1, *range(spec.ndim + 1)))
        return ops.narrow(dx, dy)

    return _by_samples(samples, dy, (*spec.input_size, spec.in_channels), blocks)


def _kernel_grad(x: Any, dy: Any, spec: LocalConvSpec, resources: Resources) -> Any:
    blocks, own = _blocks(x, spec, resources), prod(spec.positions_shape)
    filters, batch = spec.filters // spec.groups, _size(x, 0)
    once = isinstance(batch, int) and 0 < batch <= blocks.samples  # then nothing is summed here

    def samples(dkernel: Any, first: Any, count: Any) -> Any:
        rows = _rows(_slice(x, first, count), spec)
        matrices = layout._by_position(_slice(dy, first, count), (), spec)

        def block(dkernel: Any, first: Any, count: Any) -> Any:
            part = _slice(matrices, first * spec.groups, count * spec.groups)
            part = tf.matmul(ops.widen(_patches(rows, first, count, spec)), part)
            if spec.groups > 1:
                part = tf.reshape(part, (-1, spec.groups, spec.terms, filters))
                part = tf.transpose(part, (0, 2, 1, 3))
            part = tf.reshape(part, (-1, spec.terms * spec.filters))
            if once:
                return _put(dkernel, first, tf.cast(part, dkernel.dtype))
            return _add(dkernel, first + tf.range(count), part)

        return _over(own, blocks.positions, block, dkernel)

    dtype = x.dtype if once else DTYPES[x.dtype.name].accumulator
    dkernel = _new((own, spec.terms * spec.filters), dtype, zeros=not once)
    dkernel = _over(batch, blocks.samples, samples, dkernel)
    return ops.narrow(tf.reshape(dkernel, spec.kernel_shape), x)


def _blocks(array: Any, spec: LocalConvSpec, resources: Resources) -> Cut:
    limit = resources.max_workspace
    return cut(spec, array.shape[0], array.dtype.name, device_of(array), limit)


def _rows(x: Any, spec: LocalConvSpec) -> Any:
    """``(N, *I, G*C) -> (rows, N)`` or ``(rows, C*N)``; see `lcmulti_tensorflow.rows`."""
    x = ops.pad(x, ((0, 0), *spec.padding, (0, 0)))
    x = tf.transpose(x, (*range(1, spec.ndim + 2), 0))
    return tf.reshape(x, (rows_of(spec).count, -1))


def _patches(rows: Any, first: Any, count: Any, spec: LocalConvSpec) -> Any:
    """``(U*G, k*C, S*N)`` of *count* own positions."""
    patches = tf.gather(rows, rows_of(spec).index(first, count))
    return ops.widen(tf.reshape(patches, (count * spec.groups, spec.terms, -1)))


def _by_own(kernel: Any, spec: LocalConvSpec) -> Any:
    """``(*positions, *k, C, G*F) -> (U, k*C, G*F)``."""
    return tf.reshape(kernel, (-1, spec.terms, spec.filters))


def _kernels(kernel: Any, first: Any, count: Any, spec: LocalConvSpec) -> Any:
    """``(U, k*C, G*F) -> (U*G, k*C, F)`` of *count* own positions."""
    kernel, filters = ops.widen(_slice(kernel, first, count)), spec.filters // spec.groups
    if spec.groups > 1:
        kernel = tf.reshape(kernel, (-1, spec.terms, spec.groups, filters))
        kernel = tf.reshape(tf.transpose(kernel, (0, 2, 1, 3)), (-1, spec.terms, filters))
    return kernel


def _by_samples(
    function: Callable[[Any], Any], array: Any, shape: tuple[int, ...], blocks: Cut
) -> Any:
    """Apply *function* to blocks of samples and put what it returns together."""
    total = _size(array, 0)
    if isinstance(total, int) and 0 < total <= blocks.samples:
        return function(array)

    def samples(carry: Any, first: Any, count: Any) -> Any:
        return _put(carry, first, function(_slice(array, first, count)))

    return _over(total, blocks.samples, samples, _new((total, *shape), array.dtype))


def _over(total: Any, block: Any, body: Callable[[Any, Any, Any], Any], carry: Any) -> Any:
    """Carry a tensor through ``body(carry, first, count)`` over blocks that cover *total*.

    *total* is an int, or a scalar tensor where it is not known yet.
    """
    known = isinstance(total, int)
    if not known:  # XLA checks a block against what it is cut from even if the loop never turns
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
        # XLA also checks the branch that is not taken, where there must be something to scatter.
        first, count = tf.maximum(tf.minimum(full * block, total - 1), 0), tf.maximum(rest, 1)
        return tf.cond(rest > 0, lambda: body(carry, first, count), lambda: carry)
    return body(carry, full * block, rest) if rest else carry


def _size(array: Any, axis: int) -> Any:
    """The size of an axis, an int if it is known."""
    known = array.shape[axis]
    return tf.shape(array)[axis] if known is None else known


def _slice(array: Any, first: Any, count: Any) -> Any:
    """``array[first : first + count]``, of static size where *count* is."""
    if isinstance(count, int) and count == array.shape[0]:
        return array
    rank = array.shape.rank
    sizes = [_size(array, axis) for axis in range(1, rank)]
    return tf.slice(array, [first] + [0] * (rank - 1), [count, *sizes])


def _new(shape: tuple[Any, ...], dtype: Any, zeros: bool = False) -> Any:
    """A tensor that is nobody else's, as `_put` and `_add` ask for: never a folded constant."""
    return tf.raw_ops.Empty(shape=shape, dtype=dtype, init=zeros)


def _put(carry: Any, first: Any, part: Any) -> Any:
    """*carry* with *part* in place of its elements from *first* on."""
    index = first + tf.range(_size(part, 0))
    return _on_cpu_or_not(
        lambda: tf.raw_ops.InplaceUpdate(x=carry, i=index, v=part),
        lambda: tf.tensor_scatter_nd_update(carry, index[:, None], part),
    )


def _add(carry: Any, index: Any, part: Any) -> Any:
    """*carry* with *part* added to its elements *index*, which may repeat."""
    return _on_cpu_or_not(
        lambda: tf.raw_ops.InplaceAdd(x=carry, i=index, v=part),
        lambda: tf.tensor_scatter_nd_add(carry, index[:, None], part),
    )


def _on_cpu_or_not(cpu: Callable[[], Any], other: Callable[[], Any]) -> Any:
    # TensorFlow copies all of what a loop carries for each scatter into it, unless told that
    # nobody else holds it; XLA sees that by itself and has no such operation. Which of the two
    # computes is not known before the graph is placed: this is how TensorFlow's own RNNs choose.
    return tf.switch_case(tf.raw_ops.DeviceIndex(device_names=["CPU"]), [cpu, other])


layout = Composed(ops)
blocked = Blocked(ops)
