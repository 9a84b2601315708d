"""Patches times kernels, one block of output positions at a time.

Requirements this module is written to:

* No array of the size of the input or of all patches is held. Inside the loop, the part that a
  block needs is sliced from the arrays, padded and reordered.
* Tracing and compiling take the same time for any number of positions. All blocks run in one loop;
  the rest of the one axis that blocks do not divide runs in a second one.
* The batch may be symbolic. Then it is not divided.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import jax.numpy as jnp
from jax import Array, lax

from lcmulti.algorithms.blocked import Grid, grid_of
from lcmulti.dtypes import DTYPES
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import UNKNOWN_BATCH, Problem, Resources
from lcmulti_jax.array_operations import (
    Index,
    add_to_input,
    default_device,
    fold,
    multiply,
    part_of_input,
    read,
    widen,
    windows,
    write,
)

__all__ = ["JaxBlocked", "blocked"]

CACHE_TARGET = 16 * 2**20
"""Bytes of a block on a CPU; more than for NumPy, because a step of an XLA loop costs more."""

MOST_PLACES = 2**31 - 1
"""Largest number of places in the input of one block; XLA counts them in 32 bits."""

# Start and length of a block along the batch and each output axis. A start is traced if there are
# several blocks. Only the length of the batch may be symbolic.
Start = tuple[Index, ...]
Size = tuple[int, ...]
Step = Callable[[Start, Size, Array], Array]


class JaxBlocked:
    """`lcmulti.backend.Implementation` in blocks of a bounded size.

    Parameters
    ----------
    bounded : bool
        False computes everything as one block.
    """

    def __init__(self, bounded: bool) -> None:
        self.bounded = bounded

    def decline(self, problem: Problem) -> str | None:
        """Serves every call, unless one block is too large to be indexed."""
        if prod(_block(problem.spec, self._grid_of(problem).positions).input_size) > MOST_PLACES:
            return f"a block of more than {MOST_PLACES:,} input places"
        return None

    def workspace(self, problem: Problem) -> int:
        """Bytes of one block, and of the float32 gradient in which half types are summed."""
        spec, dtype = problem.spec, DTYPES[problem.dtype]
        grid = self._grid_of(problem)
        inner = _block(spec, grid.positions)
        patches = prod(grid.positions) * prod(spec.kernel_size) * spec.in_channels
        one = patches + prod(inner.output_shape) + prod(inner.input_shape)
        # Each is held as it was sliced or gathered, and in the order of the matrix product.
        elements = 2 * (grid.samples * one + prod(inner.kernel_shape))
        if dtype.is_half:
            batch = problem.samples
            kernel = 0 if self._once(spec, problem.batch, grid) else prod(spec.kernel_shape)
            elements += max(batch * prod(spec.input_shape), kernel)
        return elements * DTYPES[dtype.accumulator].itemsize

    def forward(self, x: Array, kernel: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        """See `lcmulti.backend.Implementation.forward`."""
        # The smaller operand is transposed for the matrix product.
        few = _known(x) is not None and x.shape[0] <= spec.filters // spec.groups

        def step(start: Start, size: Size, y: Array) -> Array:
            inner = _block(spec, size[1:])
            patches = windows(part_of_input(x, start, size, inner, spec), inner)
            kernels = _kernels(kernel, start, inner)
            part = (
                multiply("PKY", patches, kernels, inner)
                if few
                else multiply("KPY", kernels, patches, inner)
            )
            return write(y, part.astype(x.dtype), start)

        y = jnp.zeros((x.shape[0], *spec.output_shape), x.dtype)
        return self._walk(step, y, x, spec, resources)

    def input_grad(
        self, dy: Array, kernel: Array, spec: LocalConvSpec, resources: Resources
    ) -> Array:
        """See `lcmulti.backend.Implementation.input_grad`."""

        def step(start: Start, size: Size, dx: Array) -> Array:
            inner = _block(spec, size[1:])
            part = widen(read(dy, start, size))
            patches = multiply("KYP", _kernels(kernel, start, inner), part, inner)
            return add_to_input(dx, fold(patches, inner), start, inner, spec)

        dx = jnp.zeros((dy.shape[0], *spec.input_shape), DTYPES[dy.dtype.name].accumulator)
        return self._walk(step, dx, dy, spec, resources).astype(dy.dtype)

    def kernel_grad(self, x: Array, dy: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        """See `lcmulti.backend.Implementation.kernel_grad`."""
        batch = _known(x)
        grid = self._grid(spec, batch, x.dtype.name, resources)
        once = self._once(spec, batch, grid)

        def step(start: Start, size: Size, dkernel: Array) -> Array:
            inner = _block(spec, size[1:])
            patches = windows(part_of_input(x, start, size, inner, spec), inner)
            part = multiply("PYK", patches, widen(read(dy, start, size)), inner)
            at = _kernel_start(start, spec)
            if not once:
                part += read(dkernel, at, part.shape)
            return write(dkernel, part.astype(dkernel.dtype), at)

        # If several blocks add to one kernel, the sum is held in the accumulator dtype.
        dtype = x.dtype if once else DTYPES[x.dtype.name].accumulator
        dkernel = jnp.zeros(spec.kernel_shape, dtype)
        return self._walk(step, dkernel, x, spec, resources).astype(x.dtype)

    def _once(self, spec: LocalConvSpec, batch: int | None, grid: Grid) -> bool:
        """Whether each part of the kernel's gradient comes from a single block."""
        return not spec.shared_axes and (batch is None or grid.samples >= batch)

    def _grid_of(self, problem: Problem) -> Grid:
        return self._grid(problem.spec, problem.batch, problem.dtype, problem.resources)

    def _grid(
        self, spec: LocalConvSpec, batch: int | None, dtype: str, resources: Resources
    ) -> Grid:
        samples = UNKNOWN_BATCH if batch is None else max(batch, 1)
        if not self.bounded:
            return Grid(spec.output_size, samples)
        target = resources.max_workspace // 2  # including what a step holds besides its patches
        if default_device() == "cpu":
            target = min(CACHE_TARGET, target)
        # XLA copies a block of the kernel, which costs as much as this many additional samples.
        grid = grid_of(spec, samples + spec.filters // spec.groups, dtype, target)
        return grid._replace(samples=samples if batch is None else min(grid.samples, samples))

    def _walk(
        self, step: Step, carry: Array, array: Array, spec: LocalConvSpec, resources: Resources
    ) -> Array:
        """Fold ``step(start, size, carry) -> carry`` over the batch and the output positions."""
        batch = _known(array)
        grid = self._grid(spec, batch, array.dtype.name, resources)
        axes = [*zip(spec.output_size, grid.positions, strict=True)]
        if batch is None or grid.samples >= batch:
            size, count, rest = [array.shape[0]], [1], [0]
        else:
            axes, size, count, rest = [(batch, grid.samples), *axes], [], [], []
        for length, part in axes:
            size.append(part)
            count.append(length // part)
            rest.append(length % part)
        carry = _loop(step, carry, [0] * len(size), size, count)
        # At most one axis has a remainder, the outermost one that is divided.
        for axis, remainder in enumerate(rest):
            if remainder:
                first = [0] * len(size)
                first[axis] = size[axis] * count[axis]
                last, once = [*size], [*count]
                last[axis], once[axis] = remainder, 1
                carry = _loop(step, carry, first, last, once)
        return carry


def _loop(step: Step, carry: Array, first: list[int], size: list[int], count: list[int]) -> Array:
    """Fold *step* over ``count[axis]`` blocks of ``size[axis]`` along each axis, after *first*."""
    if prod(count) == 1:
        return step(tuple(first), tuple(size), carry)

    def body(index: Array, carry: Array) -> Array:
        start: list[Index] = [*first]
        for axis in reversed(range(len(count))):
            if count[axis] > 1:
                start[axis] += index % count[axis] * size[axis]
                index = index // count[axis]
        return step(tuple(start), tuple(size), carry)

    return lax.fori_loop(0, prod(count), body, carry)


def _known(array: Array) -> int | None:
    """The batch, or None if it is symbolic."""
    return array.shape[0] if isinstance(array.shape[0], int) else None


def _block(spec: LocalConvSpec, positions: tuple[int, ...]) -> LocalConvSpec:
    """The operation on this many positions of a padded input."""
    return spec.block((0,) * spec.ndim, positions)[0]


def _kernel_start(start: Start, spec: LocalConvSpec) -> Start:
    return tuple(0 if axis in spec.shared_axes else at for axis, at in enumerate(start[1:]))


def _kernels(kernel: Array, start: Start, inner: LocalConvSpec) -> Array:
    return widen(read(kernel, _kernel_start(start, inner), inner.positions_shape))


blocked = JaxBlocked(bounded=True)
