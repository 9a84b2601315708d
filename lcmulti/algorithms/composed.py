"""The operation as patches times matrices, written once over a few array operations.

Any framework that can slice, stack, permute, reshape, pad and multiply matrices gets the three
maps from `Composed`. All dimensions but the batch are static. The batch only appears as ``-1``,
so it may be symbolic. The number of array operations grows with the sides of the window, and
does not depend on the number of output positions.

Letters: ``N`` batch, ``O`` output positions, of which ``U`` have weights of their own and ``S``
share them, ``G`` groups, ``k`` taps, ``C`` channels and ``F`` filters of one group.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple, Protocol

from lcmulti.dtypes import DTYPES
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Problem, Resources
from lcmulti.types import Array

__all__ = ["ArrayOps", "Composed"]


class ArrayOps(Protocol):
    """The operations that a framework must provide, besides slicing with ``x[...]`` and ``+``."""

    def reshape(self, array: Array, shape: tuple[int, ...]) -> Array:
        """Reshape in C order; one entry of *shape* may be -1."""
        ...

    def permute(self, array: Array, axes: tuple[int, ...]) -> Array:
        """`numpy.transpose`."""
        ...

    def stack(self, arrays: list[Array], axis: int) -> Array:
        """`numpy.stack`."""
        ...

    def pad(self, array: Array, pairs: tuple[tuple[int, int], ...]) -> Array:
        """Pad with zeros, one ``(low, high)`` pair per axis."""
        ...

    def matmul(
        self, a: Array, b: Array, transpose_a: bool = False, transpose_b: bool = False
    ) -> Array:
        """Product of two stacks of matrices; each may be transposed in its last two axes first."""
        ...

    def widen(self, array: Array) -> Array:
        """Convert half types to float32; return other types unchanged."""
        ...

    def narrow(self, array: Array, like: Array) -> Array:
        """Round to the dtype of *like*."""
        ...


class _Layout(NamedTuple):
    """The order of axes before and after the matrix product; it depends on the spec alone."""

    positions: tuple[int, ...]  # (U..., S...) as axes of O
    own: tuple[int, ...]  # sizes of U
    shared: tuple[int, ...]  # sizes of S

    @property
    def matrices(self) -> int:
        return prod(self.own)


@lru_cache(maxsize=1024)
def _layout(spec: LocalConvSpec) -> _Layout:
    own = tuple(a for a in range(spec.ndim) if a not in spec.shared_axes)
    sizes = spec.output_size
    return _Layout(
        (*own, *spec.shared_axes),
        tuple(sizes[a] for a in own),
        tuple(sizes[a] for a in spec.shared_axes),
    )


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


class Composed:
    """`lcmulti.backend.Implementation` over any `ArrayOps`.

    It copies all patches at once. So it is for small patches, and for transforms and compilers
    that must see nothing but the framework's own operations.
    """

    def __init__(self, ops: ArrayOps) -> None:
        self.ops = ops

    def decline(self, problem: Problem) -> str | None:
        """Serves every call."""
        return None

    def workspace(self, problem: Problem) -> int:
        """The patches, their copy in matrix order, and both factors in the accumulator dtype."""
        spec = problem.spec
        return workspace(spec, spec.output_size, problem.samples, problem.dtype)

    def forward(self, x: Array, kernel: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        """See `lcmulti.backend.Implementation.forward`."""
        ops = self.ops
        patches = self._patch_matrices(x, spec)
        y = ops.matmul(patches, self._kernel_matrices(kernel, spec))
        return ops.narrow(self._by_sample(y, (), spec.filters, spec), x)

    def input_grad(
        self, dy: Array, kernel: Array, spec: LocalConvSpec, resources: Resources
    ) -> Array:
        """See `lcmulti.backend.Implementation.input_grad`."""
        ops = self.ops
        kernels = self._kernel_matrices(kernel, spec)
        patches = ops.matmul(self._by_position(dy, (), spec), kernels, transpose_b=True)
        patches = self._by_sample(patches, spec.kernel_size, spec.in_channels, spec)
        return ops.narrow(self._unpad(self.fold(patches, spec), spec), dy)

    def kernel_grad(self, x: Array, dy: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        """See `lcmulti.backend.Implementation.kernel_grad`."""
        ops = self.ops
        patches = self._patch_matrices(x, spec)
        product = ops.matmul(patches, self._by_position(dy, (), spec), transpose_a=True)
        if spec.groups > 1:
            filters = spec.filters // spec.groups
            matrices = _layout(spec).matrices
            product = ops.reshape(product, (matrices, spec.groups, spec.terms, filters))
            product = ops.permute(product, (0, 2, 1, 3))
        return ops.narrow(ops.reshape(product, spec.kernel_shape), x)

    def flat(self, array: Array, shape: tuple[int, ...], taps: tuple[int, ...]) -> Array:
        """Flatten an array that is in matrix order. Patches, which have *taps*, are copied."""
        return self.ops.reshape(array, shape)

    def cut(self, array: Array, index: tuple[slice, ...]) -> Array:
        """Slice the leading axes of an array."""
        return array[index]

    def windows(self, x: Array, spec: LocalConvSpec) -> Array:
        """Gather ``(N, *padded_size, channels) -> (N, *output_size, *kernel_size, channels)``."""
        for axis in range(spec.ndim):
            x = [self.cut(x, seen) for seen in axis_taps(spec, axis)]
            x = self.ops.stack(x, -2)  # the array that they were cut from is free by now
        return x

    def fold(self, patches: Array, spec: LocalConvSpec) -> Array:
        """Add patches up into the padded input: the adjoint of `windows`.

        One axis at a time, the last one first. The elements of one tap lie ``stride`` apart. So,
        without dilation, ``stride`` consecutive taps interleave into one contiguous run, which is
        added at once.
        """
        ops = self.ops
        for axis in reversed(range(spec.ndim)):
            n, s, d = spec.output_size[axis], spec.strides[axis], spec.dilation[axis]
            length = spec.padded_size[axis]
            taps, run = spec.kernel_size[axis], s if d == 1 else 1
            total = None
            for first in range(0, taps, run):
                rank = len(patches.shape)
                before = (slice(None),) * (rank - 2)
                chunk = self.cut(patches, (*before, slice(first, min(first + run, taps))))
                # (.., n, <behind>, taps, C) -> (.., n, taps, <behind>, C)
                order = (*range(axis + 2), rank - 2, *range(axis + 2, rank - 2), rank - 1)
                chunk = ops.permute(chunk, order)
                missing = s - min(run, taps - first)
                chunk = ops.pad(chunk, _at(axis + 2, (0, missing), rank))
                shape = tuple(chunk.shape)
                behind = shape[axis + 3 :]
                chunk = ops.reshape(chunk, (-1, *shape[1 : axis + 1], n * s, *behind))
                offset = first * d
                room = length - offset
                if n * s > room:
                    chunk = self.cut(chunk, (*(slice(None),) * (axis + 1), slice(0, room)))
                pairs = _at(axis + 1, (offset, max(room - n * s, 0)), rank - 1)
                chunk = ops.pad(chunk, pairs)
                total = chunk if total is None else total + chunk
            patches = total
        return patches

    def _patch_matrices(self, x: Array, spec: LocalConvSpec) -> Array:
        """``(N, *I, G*C) -> (U*G, S*N, k*C)``."""
        x = self.ops.pad(self.ops.widen(x), ((0, 0), *spec.padding, (0, 0)))
        return self._by_position(self.windows(x, spec), spec.kernel_size, spec)

    def _kernel_matrices(self, kernel: Array, spec: LocalConvSpec) -> Array:
        """``(*positions, *k, C, G*F) -> (U*G, k*C, F)``."""
        ops, layout, kernel = self.ops, _layout(spec), self.ops.widen(kernel)
        filters = spec.filters // spec.groups
        if spec.groups > 1:
            shape = (layout.matrices, spec.terms, spec.groups, filters)
            kernel = ops.permute(ops.reshape(kernel, shape), (0, 2, 1, 3))
        return ops.reshape(kernel, (layout.matrices * spec.groups, spec.terms, filters))

    def _by_position(self, array: Array, taps: tuple[int, ...], spec: LocalConvSpec) -> Array:
        """``(N, *O, *taps, G*C) -> (U*G, S*N, taps*C)``."""
        ops, layout, t = self.ops, _layout(spec), len(taps)
        channels = array.shape[-1] // spec.groups
        array = ops.widen(array)
        array = ops.reshape(array, (-1, *spec.output_size, *taps, spec.groups, channels))
        array = ops.permute(array, _to_position(layout, t))
        matrices = layout.matrices * spec.groups
        return self.flat(array, (matrices, -1, prod(taps) * channels), taps)

    def _by_sample(
        self, array: Array, taps: tuple[int, ...], channels: int, spec: LocalConvSpec
    ) -> Any:
        """``(U*G, S*N, taps*C) -> (N, *O, *taps, G*C)``, the inverse of `_by_position`."""
        ops, layout, groups = self.ops, _layout(spec), spec.groups
        shape = (*layout.own, groups, *layout.shared, -1, *taps, channels // groups)
        array = ops.permute(ops.reshape(array, shape), _inverse(_to_position(layout, len(taps))))
        return ops.reshape(array, (-1, *spec.output_size, *taps, channels))

    def _unpad(self, padded: Array, spec: LocalConvSpec) -> Array:
        return self.cut(padded, (slice(None), *spec.inner))


@lru_cache(maxsize=1024)
def _to_position(layout: _Layout, taps: int) -> tuple[int, ...]:
    """Permutation ``(N, *O, *taps, G, C) -> (*U, G, *S, N, *taps, C)``."""
    axes, own = len(layout.positions), len(layout.own)
    positions = tuple(1 + axis for axis in layout.positions)
    group = 1 + axes + taps
    return (
        *positions[:own], group, *positions[own:], 0, *range(1 + axes, group), group + 1,
    )  # fmt: skip


def axis_taps(spec: LocalConvSpec, axis: int) -> list[tuple[slice, ...]]:
    """For each tap along one axis, the slice of the padded input that it reads for all outputs."""
    n, s, d = spec.output_size[axis], spec.strides[axis], spec.dilation[axis]
    before = (slice(None),) * (axis + 1)
    return [
        (*before, slice(t * d, t * d + (n - 1) * s + 1, s)) for t in range(spec.kernel_size[axis])
    ]


def _at(axis: int, pair: tuple[int, int], rank: int) -> tuple[tuple[int, int], ...]:
    return tuple(pair if i == axis else (0, 0) for i in range(rank))


def workspace(spec: LocalConvSpec, positions: tuple[int, ...], batch: int, dtype: str) -> int:
    """Bytes held while a block of *positions* is computed for *batch* samples.

    The patches twice (as gathered and in matrix order), the array they are multiplied with twice,
    the padded input, and for half types the kernel in float32.
    """
    count = prod(positions)
    elements = 2 * batch * count * (spec.terms * spec.groups + spec.filters)
    if DTYPES[dtype].is_half:
        elements += count * spec.terms * spec.filters
    if DTYPES[dtype].is_half or any(map(any, spec.padding)):
        elements += 2 * batch * prod(spec.padded_size) * spec.in_channels
    return elements * DTYPES[DTYPES[dtype].accumulator].itemsize
