"""Patches times kernels, a block of output positions at a time.

Requirements this module is written to:

* Nothing of the size of the input or of all patches is held: what a block needs is cut from the
  arrays as they lie, padded and put in order inside the loop.
* Tracing and compiling cost the same for any number of positions: all blocks run through one
  loop, and what remains at the end of the one axis that is cut unevenly through a second.
* The batch is the last axis of patches, so that a window is one run of memory at any stride.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from string import ascii_uppercase
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lcmulti.backend import Problem, Resources
from lcmulti.blocks import Grid, cut
from lcmulti.composed import UNKNOWN_BATCH
from lcmulti.dtypes import DTYPES
from lcmulti.spec import LocalConvSpec

__all__ = ["Blocked", "blocked", "composed", "widen"]

CACHE_TARGET = 16 * 2**20
"""Bytes of a block on a CPU; larger than NumPy's, for a step of an XLA loop costs more."""

Body = Callable[[tuple[Any, ...], tuple[Any, ...], Any], Any]


def widen(array: Any) -> Any:
    """Half types to float32, others as they are."""
    return array.astype(DTYPES[array.dtype.name].accumulator)


class Blocked:
    """`lcmulti.backend.Implementation` in blocks of at most a target size.

    Parameters
    ----------
    bounded : bool
        False takes all positions as one block.
    """

    def __init__(self, bounded: bool) -> None:
        self.bounded = bounded

    def decline(self, problem: Problem) -> str | None:
        """Serves everything."""
        return None

    def workspace(self, problem: Problem) -> int:
        """Bytes of one block, and the float32 gradient that half types are summed in."""
        spec, dtype = problem.spec, DTYPES[problem.dtype]
        batch = UNKNOWN_BATCH if problem.batch is None else problem.batch
        grid = self._grid(spec, problem.batch, dtype.name, problem.resources)
        total = _block_bytes(spec, grid, dtype.accumulator)
        if dtype.is_half:
            total += 4 * max(batch * prod(spec.input_shape), prod(spec.kernel_shape))
        return total

    def forward(self, x: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `lcmulti.backend.Implementation.forward`."""

        def block(start: Any, size: Any, y: Any) -> Any:
            inner = _inner(spec, size)
            patches = _windows(_read_input(x, start, size, inner, spec), inner)
            kernels = _read_kernel(kernel, start, inner, spec)
            if _batch(x) is None or _batch(x) > spec.filters // spec.groups:  # smaller: transposed
                part = _multiply("KPY", kernels, patches, inner)
            else:
                part = _multiply("PKY", patches, kernels, inner)
            return _write(y, part.astype(x.dtype), start)

        y = jnp.zeros((x.shape[0], *spec.output_shape), x.dtype)
        return self._walk(block, y, x, spec, resources)

    def input_grad(self, dy: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `lcmulti.backend.Implementation.input_grad`."""

        def block(start: Any, size: Any, dx: Any) -> Any:
            inner = _inner(spec, size)
            part = _read(dy, start, size)
            kernels = _read_kernel(kernel, start, inner, spec)
            patches = _multiply("KYP", kernels, widen(part), inner)
            return _add_input(dx, _fold(patches, inner), start, inner, spec)

        dx = jnp.zeros((dy.shape[0], *spec.input_shape), DTYPES[dy.dtype.name].accumulator)
        return self._walk(block, dx, dy, spec, resources).astype(dy.dtype)

    def kernel_grad(self, x: Any, dy: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `lcmulti.backend.Implementation.kernel_grad`."""
        grid = self._grid(spec, _batch(x), x.dtype.name, resources)
        # Where several blocks add to one kernel, their sum is held in the accumulator dtype.
        once = not spec.shared_axes and (_batch(x) is None or grid.samples >= x.shape[0])

        def block(start: Any, size: Any, dkernel: Any) -> Any:
            inner = _inner(spec, size)
            patches = _windows(_read_input(x, start, size, inner, spec), inner)
            part = _multiply("PYK", patches, widen(_read(dy, start, size)), inner)
            at = _kernel_start(start, spec)
            if not once:
                part += _read(dkernel, at, part.shape)
            return _write(dkernel, part.astype(dkernel.dtype), at)

        dtype = x.dtype if once else DTYPES[x.dtype.name].accumulator
        dkernel = jnp.zeros(spec.kernel_shape, dtype)
        return self._walk(block, dkernel, x, spec, resources).astype(x.dtype)

    def _grid(
        self, spec: LocalConvSpec, batch: int | None, dtype: str, resources: Resources
    ) -> Grid:
        samples = UNKNOWN_BATCH if batch is None else batch
        if not self.bounded:
            return Grid(spec.output_size, max(samples, 1))
        target = resources.max_workspace
        if jax.default_backend() == "cpu":
            target = min(CACHE_TARGET, target)
        # A block of the kernel weighs as much as this many more samples.
        grid = cut(spec, samples + spec.filters // spec.groups, dtype, target)
        return grid._replace(samples=min(grid.samples, max(samples, 1)))

    def _walk(
        self, block: Body, carry: Any, array: Any, spec: LocalConvSpec, resources: Resources
    ) -> Any:
        """Fold ``block(start, size, carry) -> carry`` over batch and output positions."""
        batch = _batch(array)
        grid = self._grid(spec, batch, array.dtype.name, resources)
        samples = grid.samples if batch is not None and grid.samples < batch else array.shape[0]
        size = (samples, *grid.positions)
        count = [1 if samples is array.shape[0] else array.shape[0] // samples]
        rest = [0 if samples is array.shape[0] else array.shape[0] % samples]
        for n, b in zip(spec.output_size, grid.positions, strict=True):
            count.append(n // b)
            rest.append(n % b)
        carry = _loop(block, carry, (0,) * len(size), size, count)
        for axis, remainder in enumerate(rest):  # at most one: the outermost that is cut
            if remainder:
                start = tuple(size[i] * count[i] if i == axis else 0 for i in range(len(size)))
                last = tuple(remainder if i == axis else n for i, n in enumerate(size))
                once = [1 if i == axis else n for i, n in enumerate(count)]
                carry = _loop(block, carry, start, last, once)
        return carry


def _loop(
    block: Body, carry: Any, first: tuple[int, ...], size: tuple[Any, ...], count: list[int]
) -> Any:
    """Fold *block* over a grid of ``count[i]`` blocks along each axis, from *first* on."""
    if prod(count) == 1:
        return block(first, size, carry)

    def step(index: Any, carry: Any) -> Any:
        start = []
        for at, length, n in zip(reversed(first), reversed(size), reversed(count), strict=True):
            start.append(at + index % n * length if n > 1 else at)
            index = index // n
        return block(tuple(reversed(start)), size, carry)

    return lax.fori_loop(0, prod(count), step, carry)


def _batch(array: Any) -> int | None:
    return array.shape[0] if type(array.shape[0]) is int else None


def _inner(spec: LocalConvSpec, size: tuple[Any, ...]) -> LocalConvSpec:
    return spec.block((0,) * spec.ndim, size[1:])[0]


def _block_bytes(spec: LocalConvSpec, grid: Grid, dtype: str) -> int:
    inner = _inner(spec, (1, *grid.positions))
    patches = prod(grid.positions) * spec.terms * spec.groups
    elements = grid.samples * (
        2 * patches + 2 * prod(inner.output_shape) + 2 * prod(inner.input_shape)
    )
    return (elements + 2 * prod(inner.kernel_shape)) * DTYPES[dtype].itemsize


def _read(array: Any, start: tuple[Any, ...], size: tuple[Any, ...]) -> Any:
    for axis, (at, n) in enumerate(zip(start, size, strict=False)):
        if n is not array.shape[axis] and n != array.shape[axis]:
            array = lax.dynamic_slice_in_dim(array, at, n, axis)
    return array


def _write(array: Any, part: Any, start: tuple[Any, ...]) -> Any:
    if part.shape == array.shape:
        return part
    return lax.dynamic_update_slice(array, part, (*start, *(0,) * (array.ndim - len(start))))


def _read_kernel(
    kernel: Any, start: tuple[Any, ...], inner: LocalConvSpec, spec: LocalConvSpec
) -> Any:
    return widen(_read(kernel, _kernel_start(start, spec), inner.positions_shape))


def _kernel_start(start: tuple[Any, ...], spec: LocalConvSpec) -> tuple[Any, ...]:
    return tuple(0 if axis in spec.shared_axes else at for axis, at in enumerate(start[1:]))


def _place(
    start: tuple[Any, ...], inner: LocalConvSpec, spec: LocalConvSpec
) -> list[tuple[Any, int, Any]]:
    """For each spatial axis, where to cut the input, how long, and where the window starts there.

    The window of a block may begin before the input and end behind it; what is cut lies inside.
    """
    places = []
    for axis, (low, _) in enumerate(spec.padding):
        at = start[axis + 1] * spec.strides[axis] - low
        length = min(inner.input_size[axis], spec.input_size[axis])
        cut_at = at
        if inner.output_size[axis] == spec.output_size[axis]:
            cut_at, length = 0, spec.input_size[axis]
        elif any(spec.padding[axis]):
            cut_at = jnp.clip(at, 0, spec.input_size[axis] - length)
        places.append((cut_at, length, at - cut_at))
    return places


def _shift(array: Any, axis: int, offset: Any, length: int) -> Any:
    """``array[offset : offset + length]`` along *axis*, zeros where that is outside."""
    pairs = [(0, 0, 0)] * array.ndim
    zero = jnp.zeros((), array.dtype)
    if isinstance(offset, int):
        pairs[axis] = (-offset, offset + length - array.shape[axis], 0)
        return lax.pad(array, zero, pairs) if any(map(any, pairs)) else array
    pairs[axis] = (length, length, 0)
    first = jnp.maximum(offset + length, 0)  # beyond the zeros, there are only zeros
    return lax.dynamic_slice_in_dim(lax.pad(array, zero, pairs), first, length, axis)


def _read_input(
    x: Any, start: tuple[Any, ...], size: tuple[Any, ...], inner: LocalConvSpec, spec: LocalConvSpec
) -> Any:
    """The padded input of a block, ``(N, *I, G*C) -> (*input_size, G, C, N)``."""
    places = _place(start, inner, spec)
    x = _read(x, (start[0], *(p[0] for p in places)), (size[0], *(p[1] for p in places)))
    for axis, (_, _, offset) in enumerate(places):
        x = _shift(x, axis + 1, offset, inner.input_size[axis])
    x = jnp.moveaxis(widen(x), 0, -1)
    return x.reshape(prod(inner.input_size), spec.in_channels, x.shape[-1])


def _add_input(
    dx: Any, part: Any, start: tuple[Any, ...], inner: LocalConvSpec, spec: LocalConvSpec
) -> Any:
    """The adjoint of `_read_input`, added to *dx*."""
    part = jnp.moveaxis(part.reshape(*inner.input_shape, part.shape[-1]), -1, 0)
    places = _place(start, inner, spec)
    for axis, (_, length, offset) in enumerate(places):
        part = _shift(part, axis + 1, -offset, length)
    at = (start[0], *(p[0] for p in places))
    if part.shape != dx.shape:
        part += _read(dx, at, part.shape)
    return _write(dx, part, at)


def _seen(spec: LocalConvSpec) -> Any:
    """``(prod(output_size), taps)``: the place, in a flat input, that each tap of a window sees."""
    axes = spec.ndim
    total: Any = 0
    for axis in range(axes):
        outer = prod(spec.input_size[axis + 1 :])
        for place, count, step in (
            (axis, spec.output_size[axis], spec.strides[axis]),
            (axes + axis, spec.kernel_size[axis], spec.dilation[axis]),
        ):
            steps = step * outer * lax.iota("int32", count)
            total += lax.expand_dims(steps, [i for i in range(2 * axes) if i != place])
    return total.reshape(prod(spec.output_size), -1)


def _windows(x: Any, spec: LocalConvSpec) -> Any:
    """Gather ``(prod(input_size), C, N) -> (prod(output_size), taps, C, N)``."""
    return x.at[_seen(spec)].get(mode="promise_in_bounds")


def _fold(patches: Any, spec: LocalConvSpec) -> Any:
    """Scatter-add, the adjoint of `_windows`."""
    x = jnp.zeros((prod(spec.input_size), *patches.shape[2:]), patches.dtype)
    return x.at[_seen(spec)].add(patches, mode="promise_in_bounds")


def _multiply(order: str, a: Any, b: Any, spec: LocalConvSpec) -> Any:
    """Sum of products of two of patches ``P``, kernel ``K`` and output ``Y``, giving the third.

    ``P (prod(output_size), taps, G*C, N)``, ``K (*positions, *k, C, G*F)``, ``Y (N, *O, G*F)``.
    The order of the operands and of the sum's axes leaves XLA the fewest transposes, none of the
    larger arrays where kernels are neither grouped nor shared.
    """
    letters, sizes = ascii_uppercase[: spec.ndim], spec.output_size
    own = [axis for axis in range(spec.ndim) if axis not in spec.shared_axes]
    u = "".join(letters[axis] for axis in own)
    s = "".join(letters[axis] for axis in spec.shared_axes)
    groups, taps = spec.groups, prod(spec.kernel_size)
    channels, filters = spec.in_channels // groups, spec.filters // groups
    views = {
        "P": (f"{letters}tgcz", (*sizes, taps, groups, channels)),
        "K": (f"{u}tcgy", (*(sizes[axis] for axis in own), taps, channels, groups, filters)),
        "Y": (f"z{letters}gy", (*sizes, groups, filters)),
    }
    left, right, out = order

    def split(kind: str, array: Any) -> Any:
        shape = views[kind][1]
        if kind == "P":
            shape = (*shape, array.shape[-1])
        return array.reshape((array.shape[0], *shape) if kind == "Y" else shape)

    natural = {"PKY": f"{u}g{s}zy", "KPY": f"{u}gy{s}z", "KYP": f"{u}gtc{s}z", "PYK": f"{u}gtcy"}
    product = jnp.einsum(
        f"{views[left][0]},{views[right][0]}->{natural[order]}",
        split(left, a),
        split(right, b),
        precision=lax.Precision.HIGHEST,
    )
    product = jnp.einsum(f"{natural[order]}->{views[out][0]}", product)
    if out == "K":
        return product.reshape(spec.kernel_shape)
    if out == "Y":
        return product.reshape(product.shape[0], *spec.output_shape)
    return product.reshape(prod(sizes), taps, spec.in_channels, product.shape[-1])


blocked = Blocked(bounded=True)
composed = Blocked(bounded=False)
