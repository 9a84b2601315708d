"""One block: its part of the input, the patches in it, and their products.

The batch is the last axis here, so that what one tap sees is one run of memory whatever the
strides. Patches are gathered and scattered by row numbers: XLA would fuse slices and stacks, or
zeros and sums, into one loop that asks of every element which tap it came from. On a CPU that is
slow; on a GPU it is not, but scattering is, and adds in another order each time.
"""

from __future__ import annotations

from math import prod
from string import ascii_uppercase
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

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


MOST_TERMS = 32
"""Taps of one axis that XLA is given as one sum; more are added in a loop."""


def default_device() -> str:
    """Kind of device that JAX computes on unless told otherwise: tracers have none."""
    chosen = jax.config.jax_default_device
    if chosen is None:
        return jax.default_backend()
    name = str(getattr(chosen, "platform", chosen))
    return "gpu" if name in ("cuda", "rocm") else name


def widen(array: Any) -> Any:
    """Half types to float32, others as they are."""
    return array.astype(DTYPES[array.dtype.name].accumulator)


def read(array: Any, start: tuple[Any, ...], size: tuple[Any, ...]) -> Any:
    """Cut ``size[i]`` from ``start[i]`` on along the first axes, those that *start* names."""
    dtype = array.dtype
    if dtype.itemsize == 2:  # XLA's CPU would cut half types in float32, and widen all of *array*
        traced = [at for at in start if isinstance(at, jax.core.Tracer)]
        if traced:  # in a loop; were it not tied to the step, XLA would convert all before it
            array, *_ = lax.optimization_barrier((array, *traced))
        array = lax.bitcast_convert_type(array, jnp.uint16)
    for axis, (at, length) in enumerate(zip(start, size, strict=False)):
        if length != array.shape[axis]:
            array = lax.dynamic_slice_in_dim(array, at, length, axis)
    return lax.bitcast_convert_type(array, dtype)


def write(array: Any, part: Any, start: tuple[Any, ...]) -> Any:
    """*array* with *part* from ``start[i]`` on along the first axes."""
    if part.shape == array.shape:
        return part
    return lax.dynamic_update_slice(array, part, (*start, *(0,) * (array.ndim - len(start))))


def part_of_input(
    x: Any, start: tuple[Any, ...], size: tuple[Any, ...], inner: LocalConvSpec, spec: LocalConvSpec
) -> Any:
    """The padded input of a block, ``(N, *I, C) -> (prod(input_size), C, N)``."""
    at, length, offset = _places(start, inner, spec)
    x = read(x, (start[0], *at), (size[0], *length))
    for axis, (low, wanted) in enumerate(zip(offset, inner.input_size, strict=True)):
        x = _shift(x, axis + 1, low, wanted)
    x = jnp.moveaxis(widen(x), 0, -1)
    return x.reshape(prod(inner.input_size), spec.in_channels, x.shape[-1])


def add_to_input(
    dx: Any, part: Any, start: tuple[Any, ...], inner: LocalConvSpec, spec: LocalConvSpec
) -> Any:
    """The adjoint of `part_of_input`, added to *dx*."""
    part = jnp.moveaxis(part.reshape(*inner.input_shape, part.shape[-1]), -1, 0)
    at, length, offset = _places(start, inner, spec)
    for axis, (low, wanted) in enumerate(zip(offset, length, strict=True)):
        part = _shift(part, axis + 1, -low, wanted)
    if part.shape == dx.shape:
        return part
    at = (start[0], *at)
    return write(dx, read(dx, at, part.shape[:-1]) + part, at)


def _places(
    start: tuple[Any, ...], inner: LocalConvSpec, spec: LocalConvSpec
) -> tuple[tuple[Any, ...], tuple[int, ...], tuple[Any, ...]]:
    """Where to cut the input, how much, and where the block's windows start in that.

    They may begin before the input and end behind it; what is cut lies inside.
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
    at, length, offset = zip(*places, strict=True)
    return at, length, offset


def _shift(array: Any, axis: int, offset: Any, length: int) -> Any:
    """``array[offset : offset + length]`` along *axis*, zeros where that is outside."""
    pairs = [(0, 0, 0)] * array.ndim
    zero = jnp.zeros((), array.dtype)
    if isinstance(offset, int):
        pairs[axis] = (-offset, offset + length - array.shape[axis], 0)
        return lax.pad(array, zero, pairs)
    pairs[axis] = (length, length, 0)
    first = jnp.maximum(offset + length, 0)  # further off there is nothing but zeros either
    return lax.dynamic_slice_in_dim(lax.pad(array, zero, pairs), first, length, axis)


def windows(x: Any, spec: LocalConvSpec) -> Any:
    """Gather ``(prod(input_size), C, N) -> (prod(output_size), taps, C, N)``."""
    return x.at[_seen(spec)].get(mode="promise_in_bounds")


def fold(patches: Any, spec: LocalConvSpec) -> Any:
    """Scatter-add, the adjoint of `windows`."""
    if default_device() == "gpu":
        return _fold_by_taps(patches, spec)
    x = jnp.zeros((prod(spec.input_size), *patches.shape[2:]), patches.dtype)
    return x.at[_seen(spec)].add(patches, mode="promise_in_bounds")


def _fold_by_taps(patches: Any, spec: LocalConvSpec) -> Any:
    """One axis at a time, last first: the sum of all taps, each put apart by the stride."""
    rest = patches.shape[2:]
    array = patches.reshape(*spec.output_size, *spec.kernel_size, *rest)
    for axis in reversed(range(spec.ndim)):
        array = _sum_of_taps(array, axis, spec)
    return array.reshape(prod(spec.input_size), *rest)


def _sum_of_taps(array: Any, axis: int, spec: LocalConvSpec) -> Any:
    """Positions and taps of one axis to places of the input; the taps' axis goes."""
    taps, dilation = spec.kernel_size[axis], spec.dilation[axis]
    reach = (spec.output_size[axis] - 1) * spec.strides[axis] + 1
    behind = spec.input_size[axis] - reach
    zero = jnp.zeros((), array.dtype)

    def placed(tap: Any, low: int, high: int) -> Any:
        seen = lax.dynamic_index_in_dim(array, tap, spec.ndim + axis, keepdims=False)
        pairs = [(0, 0, 0)] * seen.ndim
        pairs[axis] = (low, high, spec.strides[axis] - 1)
        return lax.pad(seen, zero, pairs)

    def add(tap: Any, total: Any) -> Any:
        at = tap * dilation
        part = lax.dynamic_slice_in_dim(total, at, reach, axis) + placed(tap, 0, 0)
        return lax.dynamic_update_slice_in_dim(total, part, at, axis)

    if taps > MOST_TERMS:
        return lax.fori_loop(1, taps, add, placed(0, 0, behind))
    places = (tap * dilation for tap in range(taps))
    return sum(placed(tap, at, behind - at) for tap, at in enumerate(places))


def _seen(spec: LocalConvSpec) -> Any:
    """``(prod(output_size), taps)``: the row of the input that each tap of each window sees."""
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


def multiply(order: str, a: Any, b: Any, spec: LocalConvSpec) -> Any:
    """Sum of products of two of patches ``P``, kernel ``K`` and output ``Y``, giving the third.

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

    def split(kind: str, array: Any) -> Any:
        if kind == "P":
            return array.reshape(*sizes, taps, groups, channels, array.shape[-1])
        if kind == "K":
            return array.reshape(*(sizes[axis] for axis in own), taps, channels, groups, filters)
        return array.reshape(array.shape[0], *sizes, groups, filters)

    left, right, out = order
    # Asked for the axes in the order a matrix product has them, einsum leaves the operands where
    # they are. Then only small arrays are transposed, unless kernels are grouped or shared.
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
