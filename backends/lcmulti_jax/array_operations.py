"""One block: its part of the input, the patches in it, and their products.

The batch is the last axis here, so that for any strides a tap reads contiguous memory. Patches are
gathered and scattered by row numbers. Otherwise XLA would fuse slices and stacks, or zeros and
sums, into one loop that determines for every element which tap it came from. That is slow on a CPU.
On a GPU it is fast, but scattering is slow and adds in another order each time, so taps are summed
there.
"""

from __future__ import annotations

from math import prod
from string import ascii_uppercase
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax

from lcmulti.dtypes import DTYPES
from lcmulti.geometry.spec import LocalConvSpec

__all__ = [
    "add_to_input",
    "default_device",
    "fold",
    "multiply",
    "part_of_input",
    "read",
    "widen",
    "windows",
    "write",
]


Index: TypeAlias = int | Array
"""A number, which may be traced."""

MOST_TERMS = 32
"""Up to this many taps of one axis are one sum for XLA; more are added in a loop."""


def default_device() -> str:
    """Kind of JAX's default device, which is where traced code will run."""
    chosen = jax.config.jax_default_device
    if chosen is None:
        return jax.default_backend()
    name = str(getattr(chosen, "platform", chosen))
    return "gpu" if name in ("cuda", "rocm") else name


def widen(array: Array) -> Array:
    """Convert half types to float32; return other types unchanged."""
    return array.astype(DTYPES[array.dtype.name].accumulator)


def read(array: Array, start: tuple[Index, ...], size: tuple[int, ...]) -> Array:
    """A slice of ``size[i]`` elements from ``start[i]`` on, along the first ``len(start)`` axes."""
    dtype = array.dtype
    # On a CPU, XLA would slice half types in float32, and convert all of *array* first.
    if dtype.itemsize == 2:
        traced = [at for at in start if isinstance(at, jax.core.Tracer)]
        # In a loop, a dependence on the step keeps XLA from converting everything before the loop.
        if traced:
            array, *_ = lax.optimization_barrier((array, *traced))
        array = lax.bitcast_convert_type(array, jnp.uint16)
    for axis, (at, length) in enumerate(zip(start, size, strict=False)):
        if length != array.shape[axis]:
            array = lax.dynamic_slice_in_dim(array, at, length, axis)
    return lax.bitcast_convert_type(array, dtype)


def write(array: Array, part: Array, start: tuple[Index, ...]) -> Array:
    """*array* with *part* written from ``start[i]`` on along the first axes."""
    if part.shape == array.shape:
        return part
    return lax.dynamic_update_slice(array, part, (*start, *(0,) * (array.ndim - len(start))))


def part_of_input(
    x: Array,
    start: tuple[Index, ...],
    size: tuple[int, ...],
    inner: LocalConvSpec,
    spec: LocalConvSpec,
) -> Array:
    """The padded input of a block, ``(N, *I, C) -> (prod(input_size), C, N)``."""
    at, length, offset = _places(start, inner, spec)
    x = read(x, (start[0], *at), (size[0], *length))
    for axis, (low, wanted) in enumerate(zip(offset, inner.input_size, strict=True)):
        x = _shift(x, axis + 1, low, wanted)
    x = jnp.moveaxis(widen(x), 0, -1)
    return x.reshape(prod(inner.input_size), spec.in_channels, x.shape[-1])


def add_to_input(
    dx: Array, part: Array, start: tuple[Index, ...], inner: LocalConvSpec, spec: LocalConvSpec
) -> Array:
    """The adjoint of `part_of_input`, added to *dx*."""
    part = jnp.moveaxis(part.reshape(*inner.input_shape, part.shape[-1]), -1, 0)
    at, length, offset = _places(start, inner, spec)
    for axis, (low, wanted) in enumerate(zip(offset, length, strict=True)):
        part = _shift(part, axis + 1, -low, wanted)
    if part.shape == dx.shape and inner.output_size == spec.output_size:
        return part  # the only block: several blocks may each reach the whole input
    at = (start[0], *at)
    return write(dx, read(dx, at, part.shape[:-1]) + part, at)


def _places(
    start: tuple[Index, ...], inner: LocalConvSpec, spec: LocalConvSpec
) -> tuple[tuple[Index, ...], tuple[int, ...], tuple[Index, ...]]:
    """Start and size of the slice of the input that a block needs, and its windows' start in it.

    Windows may begin before the input and end behind it; the slice lies inside.
    """
    places = []
    for axis, (size, (low, high)) in enumerate(zip(spec.input_size, spec.padding, strict=True)):
        wanted = inner.input_size[axis]
        first = start[axis + 1] * spec.strides[axis] - low
        if inner.output_size[axis] == spec.output_size[axis]:
            places.append((0, size, -low))
        elif low or high:
            length = min(wanted, size)
            at = jnp.clip(first, 0, size - length)
            places.append((at, length, first - at))
        else:
            places.append((first, wanted, 0))
    where, lengths, offsets = zip(*places, strict=True)
    return where, lengths, offsets


def _shift(array: Array, axis: int, offset: Index, length: int) -> Array:
    """``array[offset : offset + length]`` along *axis*, with zeros outside of the array."""
    pairs = [(0, 0, 0)] * array.ndim
    zero = jnp.zeros((), array.dtype)
    if isinstance(offset, int):
        pairs[axis] = (-offset, offset + length - array.shape[axis], 0)
        return lax.pad(array, zero, pairs)
    pairs[axis] = (length, length, 0)
    first = jnp.maximum(offset + length, 0)  # beyond this distance there are only zeros, too
    return lax.dynamic_slice_in_dim(lax.pad(array, zero, pairs), first, length, axis)


def windows(x: Array, spec: LocalConvSpec) -> Array:
    """Gather ``(prod(input_size), C, N) -> (prod(output_size), taps, C, N)``."""
    return x.at[_seen(spec)].get(mode="promise_in_bounds")


def fold(patches: Array, spec: LocalConvSpec) -> Array:
    """Add patches up into the input: the adjoint of `windows`."""
    if default_device() == "gpu":
        return _fold_by_taps(patches, spec)
    x = jnp.zeros((prod(spec.input_size), *patches.shape[2:]), patches.dtype)
    return x.at[_seen(spec)].add(patches, mode="promise_in_bounds")


def _fold_by_taps(patches: Array, spec: LocalConvSpec) -> Array:
    """One axis at a time, the last one first: the sum of all taps, each spread by the stride."""
    rest = patches.shape[2:]
    array = patches.reshape(*spec.output_size, *spec.kernel_size, *rest)
    for axis in reversed(range(spec.ndim)):
        array = _sum_of_taps(array, axis, spec)
    return array.reshape(prod(spec.input_size), *rest)


def _sum_of_taps(array: Array, axis: int, spec: LocalConvSpec) -> Array:
    """Sum positions and taps of one axis into places of the input; removes the axis of taps."""
    taps, dilation = spec.kernel_size[axis], spec.dilation[axis]
    reach = (spec.output_size[axis] - 1) * spec.strides[axis] + 1
    behind = spec.input_size[axis] - reach
    zero = jnp.zeros((), array.dtype)

    def placed(tap: Index, low: int, high: int) -> Array:
        seen = lax.dynamic_index_in_dim(array, tap, spec.ndim + axis, keepdims=False)
        pairs = [(0, 0, 0)] * seen.ndim
        pairs[axis] = (low, high, spec.strides[axis] - 1)
        return lax.pad(seen, zero, pairs)

    def add(tap: Index, total: Array) -> Array:
        at = tap * dilation
        part = lax.dynamic_slice_in_dim(total, at, reach, axis) + placed(tap, 0, 0)
        return lax.dynamic_update_slice_in_dim(total, part, at, axis)

    if taps > MOST_TERMS:
        return lax.fori_loop(1, taps, add, placed(0, 0, behind))
    places = (tap * dilation for tap in range(taps))
    return sum(placed(tap, at, behind - at) for tap, at in enumerate(places))


def _seen(spec: LocalConvSpec) -> Array:
    """``(prod(output_size), taps)``: the row of the input that each tap of each window reads."""
    axes = spec.ndim
    rows: Any = 0
    for axis in range(axes):
        row = prod(spec.input_size[axis + 1 :])
        for place, count, step in (
            (axis, spec.output_size[axis], spec.strides[axis]),
            (axes + axis, spec.kernel_size[axis], spec.dilation[axis]),
        ):
            steps = step * row * lax.iota("int32", count)
            rows += lax.expand_dims(steps, [i for i in range(2 * axes) if i != place])
    return rows.reshape(prod(spec.output_size), prod(spec.kernel_size))


def multiply(order: str, a: Array, b: Array, spec: LocalConvSpec) -> Array:
    """Of patches ``P``, kernel ``K`` and output ``Y``, compute one as sums of products of two.

    *order* names both operands and the result: ``P (prod(output_size), taps, C, N)``,
    ``K (*positions, *kernel_size, C // groups, F)`` and ``Y (N, *output_size, F)``.
    """
    sizes, groups, taps = spec.output_size, spec.groups, prod(spec.kernel_size)
    channels, filters = spec.in_channels // groups, spec.filters // groups
    own = [axis for axis in range(spec.ndim) if axis not in spec.shared_axes]
    letters = ascii_uppercase[: spec.ndim]
    u = "".join(letters[axis] for axis in own)
    s = "".join(letters[axis] for axis in spec.shared_axes)
    subscripts = {"P": f"{letters}tgcn", "K": f"{u}tcgf", "Y": f"n{letters}gf"}

    def split(kind: str, array: Array) -> Array:
        if kind == "P":
            return array.reshape(*sizes, taps, groups, channels, array.shape[-1])
        if kind == "K":
            return array.reshape(*(sizes[axis] for axis in own), taps, channels, groups, filters)
        return array.reshape(array.shape[0], *sizes, groups, filters)

    left, right, out = tuple(order)
    # If the result has the order of axes of a matrix product, einsum does not transpose the
    # operands. Then only small arrays are transposed, unless kernels are grouped or shared.
    plain = {"PKY": f"{u}g{s}nf", "KPY": f"{u}gf{s}n", "KYP": f"{u}gtc{s}n", "PYK": f"{u}gtcf"}
    product = jnp.einsum(
        f"{subscripts[left]},{subscripts[right]}->{plain[order]}",
        split(left, a),
        split(right, b),
        precision=lax.Precision.HIGHEST,
    )
    product = jnp.einsum(f"{plain[order]}->{subscripts[out]}", product)
    if out == "K":
        return product.reshape(spec.kernel_shape)
    if out == "Y":
        return product.reshape(product.shape[0], *spec.output_shape)
    return product.reshape(prod(sizes), taps, spec.in_channels, product.shape[-1])
