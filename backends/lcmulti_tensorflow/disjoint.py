"""Windows that tile the input: the patches are the input itself, viewed as windows.

One transposition moves positions to the front, and one batched product computes all of them. If
that copy would be too large, samples are divided into blocks. In the kernel's gradient, which is a
sum over samples, positions are divided instead.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import tensorflow as tf

from lcmulti.algorithms.blocked import even
from lcmulti.algorithms.composed import Composed
from lcmulti.dtypes import DTYPES
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import UNKNOWN_BATCH, Problem, Resources
from lcmulti_tensorflow.composed import ops
from lcmulti_tensorflow.loops import by_samples, in_graph, new, over, put
from lcmulti_tensorflow.rows import fitting


class Grid(NamedTuple):
    """Samples in a block, rows of positions in a block of the kernel's gradient, and bytes held."""

    samples: int
    rows: int
    workspace: int


@lru_cache(maxsize=1024)
def grid_of(spec: LocalConvSpec, batch: int | None, dtype: str, limit: int) -> Grid:
    """Choose blocks that fit *limit*; a single one if everything fits.

    Both factors and the product are held in matrix order. With half types or groups, they are held
    a second time while they are reordered. With blocks, the slices are held as well.
    """
    kind, whole = DTYPES[dtype], UNKNOWN_BATCH if batch is None else max(batch, 1)
    wide, converted = DTYPES[kind.accumulator].itemsize, kind.is_half or spec.groups > 1
    weights = wide * prod(spec.kernel_shape)
    kernels = 2 * weights if converted else 0
    arrays = wide * (prod(spec.input_shape) + prod(spec.output_shape))
    sample = arrays * (2 if converted else 1)
    count, held = spec.output_size[_row_axis(spec)], kernels + whole * sample
    if held <= limit or len(spec.shared_axes) == spec.ndim:
        return Grid(whole, count, held)
    sample += arrays
    samples = even(whole, fitting(limit - kernels, sample, whole))
    row = (whole * sample + kernels + weights) // count
    rows = even(count, fitting(limit, row, count))
    return Grid(samples, rows, max(kernels + samples * sample, rows * row))


def _row_axis(spec: LocalConvSpec) -> int:
    """The first axis that is not shared: the kernel is contiguous along it."""
    return next((axis for axis in range(spec.ndim) if axis not in spec.shared_axes), 0)


class Tiled(Composed):
    """`Composed` with views and transpositions instead of gathering and scattering."""

    def input_grad(
        self, dy: tf.Tensor, kernel: tf.Tensor, spec: LocalConvSpec, resources: Resources
    ) -> tf.Tensor:
        """See `lcmulti.backend.Implementation.input_grad`."""
        ops = self.ops
        kernels = self._kernel_matrices(kernel, spec)
        patches = ops.matmul(self._by_position(dy, (), spec), kernels, transpose_b=True)
        sizes, axes = _view(spec), _positions_first(spec)
        ordered = [sizes[axis] for axis in axes]
        order = sorted(range(len(axes)), key=axes.__getitem__)
        dx = ops.permute(ops.reshape(patches, tuple(ordered)), tuple(order))
        seen = tuple(n * k for n, k in zip(spec.output_size, spec.kernel_size, strict=True))
        dx = ops.reshape(dx, (-1, *seen, spec.in_channels))
        unseen = ((0, n - m) for n, m in zip(spec.input_size, seen, strict=True))
        return ops.narrow(ops.pad(dx, ((0, 0), *unseen, (0, 0))), dy)

    def _patch_matrices(self, x: tf.Tensor, spec: LocalConvSpec) -> tf.Tensor:
        ops = self.ops
        pairs = zip(spec.output_size, spec.kernel_size, strict=True)
        seen = tuple(slice(0, n * k) for n, k in pairs)
        x = ops.reshape(ops.widen(x[(slice(None), *seen)]), _view(spec))
        matrices = prod(spec.positions_shape) * spec.groups
        return ops.reshape(ops.permute(x, _positions_first(spec)), (matrices, -1, spec.terms))


def _view(spec: LocalConvSpec) -> tuple[int, ...]:
    """``(N, O, k, O, k, ..., G, C)``."""
    pairs = zip(spec.output_size, spec.kernel_size, strict=True)
    channels = (spec.groups, spec.in_channels // spec.groups)
    return (-1, *(size for pair in pairs for size in pair), *channels)


@lru_cache(maxsize=1024)
def _positions_first(spec: LocalConvSpec) -> tuple[int, ...]:
    """Permutation of `_view` to ``(*U, G, *S, N, *k, C)``."""
    axes = range(spec.ndim)
    own = (1 + 2 * axis for axis in axes if axis not in spec.shared_axes)
    shared = (1 + 2 * axis for axis in spec.shared_axes)
    taps = (2 + 2 * axis for axis in axes)
    group = 1 + 2 * spec.ndim
    return (*own, group, *shared, 0, *taps, group + 1)


class TensorFlowDisjoint(Tiled):
    """`Tiled` in blocks that fit `Resources.max_workspace`."""

    def decline(self, problem: Problem) -> str | None:
        """Serves windows that neither overlap nor leave gaps, without padding."""
        if not problem.spec.is_disjoint:
            return "windows overlap, leave gaps or reach into padding"
        return None

    def workspace(self, problem: Problem) -> int:
        """See `grid_of`."""
        limit = problem.resources.max_workspace
        return grid_of(problem.spec, problem.batch, problem.dtype, limit).workspace

    def forward(
        self, x: tf.Tensor, kernel: tf.Tensor, spec: LocalConvSpec, resources: Resources
    ) -> tf.Tensor:
        """See `lcmulti.backend.Implementation.forward`."""
        if _fits(x, spec, resources):
            return tiled.forward(x, kernel, spec, resources)
        return in_graph(_forward, spec, resources)(x, kernel)

    def input_grad(
        self, dy: tf.Tensor, kernel: tf.Tensor, spec: LocalConvSpec, resources: Resources
    ) -> tf.Tensor:
        """See `lcmulti.backend.Implementation.input_grad`."""
        if _fits(dy, spec, resources):
            return tiled.input_grad(dy, kernel, spec, resources)
        return in_graph(_input_grad, spec, resources)(dy, kernel)

    def kernel_grad(
        self, x: tf.Tensor, dy: tf.Tensor, spec: LocalConvSpec, resources: Resources
    ) -> tf.Tensor:
        """See `lcmulti.backend.Implementation.kernel_grad`."""
        if _fits(x, spec, resources):
            return tiled.kernel_grad(x, dy, spec, resources)
        return in_graph(_kernel_grad, spec, resources)(x, dy)


def _grid_of(array: tf.Tensor, spec: LocalConvSpec, resources: Resources) -> Grid:
    return grid_of(spec, array.shape[0], array.dtype.name, resources.max_workspace)


def _fits(array: tf.Tensor, spec: LocalConvSpec, resources: Resources) -> bool:
    whole = array.shape[0]
    return _grid_of(array, spec, resources).samples >= (UNKNOWN_BATCH if whole is None else whole)


def _forward(
    x: tf.Tensor, kernel: tf.Tensor, spec: LocalConvSpec, resources: Resources
) -> tf.Tensor:
    return by_samples(
        lambda part: tiled.forward(part, kernel, spec, resources),
        x, (*spec.output_size, spec.filters), _grid_of(x, spec, resources).samples,
    )  # fmt: skip


def _input_grad(
    dy: tf.Tensor, kernel: tf.Tensor, spec: LocalConvSpec, resources: Resources
) -> tf.Tensor:
    return by_samples(
        lambda part: tiled.input_grad(part, kernel, spec, resources),
        dy, (*spec.input_size, spec.in_channels), _grid_of(dy, spec, resources).samples,
    )  # fmt: skip


def _kernel_grad(
    x: tf.Tensor, dy: tf.Tensor, spec: LocalConvSpec, resources: Resources
) -> tf.Tensor:
    axis = _row_axis(spec)
    count, step = spec.output_size[axis], spec.kernel_size[axis]
    start = (0,) * spec.ndim

    def rows(dkernel: tf.Tensor, first: Any, count: int) -> tf.Tensor:
        stop = (*spec.output_size[:axis], count, *spec.output_size[axis + 1 :])
        block, _ = spec.block(start, stop)
        part = tiled.kernel_grad(
            _rows(x, axis, first * step, block.input_size),
            _rows(dy, axis, first, block.output_size), block, resources,
        )  # fmt: skip
        return put(dkernel, first, tf.reshape(part, (count, -1)))

    dkernel = new((count, prod(spec.kernel_shape) // count), x.dtype)
    dkernel = over(count, _grid_of(x, spec, resources).rows, rows, dkernel)
    return tf.reshape(dkernel, spec.kernel_shape)


def _rows(array: tf.Tensor, axis: int, first: Any, size: tuple[int, ...]) -> tf.Tensor:
    """A block of spatial *size* that begins at *first* along one axis, at 0 along others."""
    begin = [0] * array.shape.rank
    begin[1 + axis] = first
    return tf.slice(array, begin, (-1, *size, array.shape[-1]))


tiled, disjoint = Tiled(ops), TensorFlowDisjoint(ops)
