"""Bounded memory: patches of a few output positions at a time, in a loop of constant graph size.

The input is transposed once, to have the batch last. Then a tap of a window is a long row: patches
are a gather of rows, and their adjoint is a scatter of rows, for any strides and dilation. A
`tf.while_loop` goes over blocks of positions in one flat order; the rest is computed after it. The
loop scatters results into a tensor that it carries, which TensorFlow and XLA do in place. If copies
of all samples would be too large, samples are divided into blocks as well.
"""

from __future__ import annotations

from math import prod
from typing import Any

import tensorflow as tf

from lcmulti.algorithms.composed import Composed
from lcmulti.dtypes import DTYPES
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Problem, Resources
from lcmulti_tensorflow.composed import ops
from lcmulti_tensorflow.loops import add, by_samples, in_graph, new, over, put, size, slice_of
from lcmulti_tensorflow.precision import device_of
from lcmulti_tensorflow.rows import Grid, grid_of, rows_of


class TensorFlowBlocked(Composed):
    """`lcmulti.backend.Implementation`; letters as in `lcmulti.composed`."""

    def workspace(self, problem: Problem) -> int:
        """See `lcmulti_tensorflow.rows.grid_of`."""
        spec, batch, dtype, device, _, resources = problem
        return grid_of(spec, batch, dtype, device, resources.max_workspace).workspace

    def forward(
        self, x: tf.Tensor, kernel: tf.Tensor, spec: LocalConvSpec, resources: Resources
    ) -> tf.Tensor:
        """See `lcmulti.backend.Implementation.forward`."""
        return in_graph(_forward, spec, resources)(x, kernel)

    def input_grad(
        self, dy: tf.Tensor, kernel: tf.Tensor, spec: LocalConvSpec, resources: Resources
    ) -> tf.Tensor:
        """See `lcmulti.backend.Implementation.input_grad`."""
        return in_graph(_input_grad, spec, resources)(dy, kernel)

    def kernel_grad(
        self, x: tf.Tensor, dy: tf.Tensor, spec: LocalConvSpec, resources: Resources
    ) -> tf.Tensor:
        """See `lcmulti.backend.Implementation.kernel_grad`."""
        return in_graph(_kernel_grad, spec, resources)(x, dy)


def _forward(
    x: tf.Tensor, kernel: tf.Tensor, spec: LocalConvSpec, resources: Resources
) -> tf.Tensor:
    blocks, kernel = _blocks(x, spec, resources), _by_own(kernel, spec)

    def samples(x: tf.Tensor) -> tf.Tensor:
        rows = _rows(x, spec)

        def block(y: tf.Tensor, first: Any, count: Any) -> Any:
            kernels = _kernels(kernel, first, count, spec)
            part = tf.matmul(_patches(rows, first, count, spec), kernels, transpose_a=True)
            return put(y, first * spec.groups, tf.cast(part, y.dtype))

        columns = size(x, 0) * prod(spec.output_size) // prod(spec.positions_shape)
        matrices = prod(spec.positions_shape) * spec.groups
        y = new((matrices, columns, spec.filters // spec.groups), x.dtype)
        y = over(prod(spec.positions_shape), blocks.positions, block, y)
        return layout._by_sample(y, (), spec.filters, spec)

    return by_samples(samples, x, (*spec.output_size, spec.filters), blocks.samples)


def _input_grad(
    dy: tf.Tensor, kernel: tf.Tensor, spec: LocalConvSpec, resources: Resources
) -> tf.Tensor:
    blocks, kernel = _blocks(dy, spec, resources), _by_own(kernel, spec)

    def samples(dy: tf.Tensor) -> tf.Tensor:
        matrices = layout._by_position(dy, (), spec)
        where = rows_of(spec)
        per_row = prod(where.padded) * spec.in_channels // where.total

        def block(dx: tf.Tensor, first: Any, count: Any) -> Any:
            part = slice_of(matrices, first * spec.groups, count * spec.groups)
            patches = tf.matmul(_kernels(kernel, first, count, spec), part, transpose_b=True)
            patches = tf.reshape(patches, (-1, size(dx, 1)))
            index = where.numbers(first, count)
            return add(dx, index, patches)

        dx = new((where.total, per_row * size(dy, 0)), matrices.dtype, zeros=True)
        dx = over(prod(spec.positions_shape), blocks.positions, block, dx)
        dx = tf.reshape(dx, (*where.padded, spec.in_channels, size(dy, 0)))
        dx = tf.transpose(dx[spec.inner], (spec.ndim + 1, *range(spec.ndim + 1)))
        return ops.narrow(dx, dy)

    return by_samples(samples, dy, (*spec.input_size, spec.in_channels), blocks.samples)


def _kernel_grad(
    x: tf.Tensor, dy: tf.Tensor, spec: LocalConvSpec, resources: Resources
) -> tf.Tensor:
    blocks, own = _blocks(x, spec, resources), prod(spec.positions_shape)
    filters, batch = spec.filters // spec.groups, size(x, 0)
    # If so, there are no sums over blocks.
    once = isinstance(batch, int) and 0 < batch <= blocks.samples

    def samples(dkernel: tf.Tensor, first: Any, count: Any) -> tf.Tensor:
        rows = _rows(slice_of(x, first, count), spec)
        matrices = layout._by_position(slice_of(dy, first, count), (), spec)

        def block(dkernel: tf.Tensor, first: Any, count: Any) -> Any:
            part = slice_of(matrices, first * spec.groups, count * spec.groups)
            part = tf.matmul(ops.widen(_patches(rows, first, count, spec)), part)
            if spec.groups > 1:
                part = tf.reshape(part, (-1, spec.groups, spec.terms, filters))
                part = tf.transpose(part, (0, 2, 1, 3))
            part = tf.reshape(part, (-1, spec.terms * spec.filters))
            if once:
                return put(dkernel, first, tf.cast(part, dkernel.dtype))
            return add(dkernel, first + tf.range(count), part)

        return over(own, blocks.positions, block, dkernel)

    dtype = x.dtype if once else DTYPES[x.dtype.name].accumulator
    dkernel = new((own, spec.terms * spec.filters), dtype, zeros=not once)
    dkernel = over(batch, blocks.samples, samples, dkernel)
    return ops.narrow(tf.reshape(dkernel, spec.kernel_shape), x)


def _blocks(array: tf.Tensor, spec: LocalConvSpec, resources: Resources) -> Grid:
    limit = resources.max_workspace
    return grid_of(spec, array.shape[0], array.dtype.name, device_of(array), limit)


def _rows(x: tf.Tensor, spec: LocalConvSpec) -> tf.Tensor:
    """``(N, *I, G*C) -> (rows, N)`` or ``(rows, C*N)``; see `lcmulti_tensorflow.rows`."""
    x = ops.pad(x, ((0, 0), *spec.padding, (0, 0)))
    x = tf.transpose(x, (*range(1, spec.ndim + 2), 0))
    return tf.reshape(x, (rows_of(spec).total, -1))


def _patches(rows: Any, first: Any, count: Any, spec: LocalConvSpec) -> tf.Tensor:
    """``(U*G, k*C, S*N)`` of *count* own positions."""
    patches = tf.gather(rows, rows_of(spec).numbers(first, count))
    return ops.widen(tf.reshape(patches, (count * spec.groups, spec.terms, -1)))


def _by_own(kernel: tf.Tensor, spec: LocalConvSpec) -> tf.Tensor:
    """``(*positions, *k, C, G*F) -> (U, k*C, G*F)``."""
    return tf.reshape(kernel, (-1, spec.terms, spec.filters))


def _kernels(kernel: tf.Tensor, first: Any, count: Any, spec: LocalConvSpec) -> tf.Tensor:
    """``(U, k*C, G*F) -> (U*G, k*C, F)`` of *count* own positions."""
    kernel, filters = ops.widen(slice_of(kernel, first, count)), spec.filters // spec.groups
    if spec.groups > 1:
        kernel = tf.reshape(kernel, (-1, spec.terms, spec.groups, filters))
        kernel = tf.reshape(tf.transpose(kernel, (0, 2, 1, 3)), (-1, spec.terms, filters))
    return kernel


layout = Composed(ops)
blocked = TensorFlowBlocked(ops)
