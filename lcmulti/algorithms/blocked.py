"""Compute block by block of output positions, so that only one block's patches exist at a time.

A block of a locally connected operation is itself a locally connected operation, on a part of
the input and of the kernel and without padding (`LocalConvSpec.block`). So each map of the whole
is a loop over the same map of the blocks. Blocks are also faster than the whole: patches of a few
MiB stay in the cache between being gathered and being multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any, NamedTuple

from lcmulti.algorithms.composed import Composed, workspace
from lcmulti.dtypes import DTYPES
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Facts, Problem, Resources
from lcmulti.types import Array

__all__ = ["CACHE_TARGET", "Block", "Blocked", "Grid", "even"]

CACHE_TARGET = 16 * 2**20
"""Largest workspace of a block on a CPU, in bytes: the fastest in PyTorch among 8 to 64 MiB."""


class Grid(NamedTuple):
    """How large blocks are: positions along each axis, and samples."""

    positions: tuple[int, ...]
    samples: int


class Block(NamedTuple):
    """One block: the part of each array that it covers.

    Parameters
    ----------
    samples : slice
        Of the batch.
    outputs, inputs : tuple of slice
        Of the spatial axes of ``y`` and of the unpadded ``x``.
    padding : tuple of (int, int)
        Zeros to put around that part of ``x``.
    kernel : tuple of slice
        Of the position axes of the kernel; the whole axis where the kernel is shared.
    spec : LocalConvSpec
        Geometry of the block, for an input that is padded already.
    """

    samples: slice
    outputs: tuple[slice, ...]
    inputs: tuple[slice, ...]
    padding: tuple[tuple[int, int], ...]
    kernel: tuple[slice, ...]
    spec: LocalConvSpec


def even(total: int, most: int) -> int:
    """Size of blocks: at most *most*, as few as cover *total*, all of about the same size."""
    return -(-total // -(-total // most))


@lru_cache(maxsize=1024)
def grid_of(spec: LocalConvSpec, batch: int, dtype: str, target: int) -> Grid:
    """Choose blocks whose workspace stays under *target* bytes, if that of one position does.

    Trailing axes stay whole as long as possible, so that a block of the kernel is contiguous in
    memory. The batch is split only if a single position is too large.
    """
    inner = _unpadded(spec)
    one = workspace(inner, (1,), max(batch, 1), dtype)
    # Half types: the input once more, in float32.
    once = workspace(inner, (0,), max(batch, 1), dtype)
    room = max((target - once) // max(one - once, 1), 1)
    positions: list[int] = []
    for size in reversed(spec.output_size):
        positions.append(even(size, room))
        room = max(room // size, 1)
    return Grid(tuple(reversed(positions)), max(min(batch, batch * target // one), 1))


def _unpadded(spec: LocalConvSpec) -> LocalConvSpec:
    return spec.block((0,) * spec.ndim, spec.output_size)[0]


def blocks(spec: LocalConvSpec, grid: Grid, batch: int) -> Iterator[Block]:
    """All blocks, with the batch innermost: then each block of the kernel is read once."""
    starts = (range(0, n, b) for n, b in zip(spec.output_size, grid.positions, strict=True))
    for start in product(*starts):
        stop = tuple(
            min(a + b, n) for a, b, n in zip(start, grid.positions, spec.output_size, strict=True)
        )
        inner, window = spec.block(start, stop)
        inputs, padding = zip(*map(_clip, window, spec.padding, spec.input_size), strict=True)
        outputs = tuple(map(slice, start, stop))
        kernel = tuple(
            slice(None) if axis in spec.shared_axes else each for axis, each in enumerate(outputs)
        )
        for first in range(0, batch, grid.samples):
            samples = slice(first, min(first + grid.samples, batch))
            yield Block(samples, outputs, inputs, padding, kernel, inner)


def _clip(window: slice, padding: tuple[int, int], size: int) -> tuple[slice, tuple[int, int]]:
    """A slice of the padded input, as a slice of the input itself and the zeros around it."""
    start, stop = window.start - padding[0], window.stop - padding[0]
    inside = slice(min(max(start, 0), size), max(min(stop, size), 0))
    low = max(-start, 0)
    if inside.stop <= inside.start:  # the whole slice lies in the padding
        return slice(0, 0), (stop - start, 0)
    return inside, (low, stop - start - low - (inside.stop - inside.start))


class Blocked(Composed):
    """`Composed` applied to one block at a time, for frameworks with arrays that can be changed."""

    def new(self, shape: tuple[int, ...], like: Array, wide: bool, zeros: bool) -> Array:
        """A new array on the device of *like*, in its dtype or (*wide*) its accumulator dtype."""
        raise NotImplementedError

    def facts(self, array: Array) -> Facts:
        """Shape, dtype and device of an array."""
        raise NotImplementedError

    def output(self, x: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        """A new ``(N, *output_size, filters)`` array; the caller writes every element."""
        return self.new((len(x), *spec.output_shape), x, wide=False, zeros=False)

    def workspace(self, problem: Problem) -> int:
        """Workspace of one block, and the float32 gradients that half types are summed in."""
        spec, dtype, limit = problem.spec, DTYPES[problem.dtype], problem.resources.max_workspace
        batch = problem.samples
        grid = _grid(spec, batch, dtype.name, problem.device, problem.resources)
        total = workspace(_unpadded(spec), grid.positions, grid.samples, dtype.name)
        if dtype.is_half:
            kernel = prod(spec.kernel_shape) if _is_summed(spec, grid, batch) else 0
            total += 4 * max(_wide_samples(spec, batch, limit) * prod(spec.input_shape), kernel)
        return total

    def forward(self, x: Array, kernel: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        """See `lcmulti.backend.Implementation.forward`."""
        y = self.output(x, spec, resources)
        for block in self._blocks(x, spec, resources):
            seen, weights = self._input(x, block), kernel[block.kernel]
            part = super().forward(seen, weights, block.spec, resources)
            self.put(y[(block.samples, *block.outputs)], part)
        return y

    def input_grad(
        self, dy: Array, kernel: Array, spec: LocalConvSpec, resources: Resources
    ) -> Array:
        """See `lcmulti.backend.Implementation.input_grad`."""
        facts = self.facts(dy)
        samples = _wide_samples(spec, len(dy), resources.max_workspace)
        if DTYPES[facts.dtype].is_half and samples < len(dy):
            dx = self.new((len(dy), *spec.input_shape), dy, wide=False, zeros=False)
            for first in range(0, len(dy), samples):
                part = dy[first : first + samples]
                dx[first : first + samples] = self.input_grad(part, kernel, spec, resources)
            return dx
        dx = self.new((len(dy), *spec.input_shape), dy, wide=True, zeros=True)
        for block in self._blocks(dy, spec, resources):
            part = self.seen_grad(dy[(block.samples, *block.outputs)])
            part = super().input_grad(part, kernel[block.kernel], block.spec, resources)
            inner = tuple(
                slice(low, low + each.stop - each.start)
                for each, (low, _) in zip(block.inputs, block.padding, strict=True)
            )
            dx[(block.samples, *block.inputs)] += part[(slice(None), *inner)]
        return self.ops.narrow(dx, dy)

    def kernel_grad(self, x: Array, dy: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        """See `lcmulti.backend.Implementation.kernel_grad`."""
        grid = self._grid_of(x, spec, resources)
        summed = _is_summed(spec, grid, len(x))
        dkernel = self.new(spec.kernel_shape, x, wide=summed, zeros=summed)
        for block in self._blocks(x, spec, resources):
            part = self.seen_grad(dy[(block.samples, *block.outputs)])
            seen = self.ops.widen(self._input(x, block))
            if summed:
                dkernel[block.kernel] += super().kernel_grad(seen, part, block.spec, resources)
            else:
                self.put_kernel_grad(dkernel[block.kernel], seen, part, block.spec, resources)
        return self.ops.narrow(dkernel, x)

    def put(self, y: Array, part: Any) -> None:
        """Write the outputs of one block into the whole."""
        y[...] = part

    def seen_grad(self, dy: Array) -> Array:
        """One block's part of the output gradient, in the accumulator dtype."""
        return self.ops.widen(dy)

    def put_kernel_grad(
        self, out: Any, x: Array, dy: Array, spec: LocalConvSpec, resources: Resources
    ) -> None:
        """Write the kernel gradient of one block into the whole."""
        out[...] = super().kernel_grad(x, dy, spec, resources)

    def _input(self, x: Array, block: Block) -> Any:
        part = x[(block.samples, *block.inputs)]
        if any(map(any, block.padding)):
            part = self.ops.pad(part, ((0, 0), *block.padding, (0, 0)))
        return part

    def _grid_of(self, array: Array, spec: LocalConvSpec, resources: Resources) -> Grid:
        facts = self.facts(array)
        return _grid(spec, len(array), facts.dtype, facts.device, resources)

    def _blocks(self, array: Array, spec: LocalConvSpec, resources: Resources) -> Iterator[Block]:
        return blocks(spec, self._grid_of(array, spec, resources), len(array))


def _grid(spec: LocalConvSpec, batch: int, dtype: str, device: str, resources: Resources) -> Grid:
    # Half of the limit is for blocks, a quarter for float32 gradients of half types, and a quarter
    # for copies in another layout.
    room = resources.max_workspace // 2
    return grid_of(spec, batch, dtype, min(CACHE_TARGET, room) if device == "cpu" else room)


def _is_summed(spec: LocalConvSpec, grid: Grid, batch: int) -> bool:
    """Whether several blocks add to the same part of the kernel, or no block writes to it."""
    return bool(spec.shared_axes) or grid.samples < batch or batch == 0


def _wide_samples(spec: LocalConvSpec, batch: int, limit: int) -> int:
    """How many samples' input gradients, in float32, fit in a quarter of *limit*."""
    return max(min(batch, limit // 4 // (4 * prod(spec.input_shape))), 1)
