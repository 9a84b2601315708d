"""The common base of the layers for Flax NNX and for Equinox, without importing either."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import ceil, prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import NamedSharding, PartitionSpec

from lcmulti.errors import ArgumentError
from lcmulti.geometry.arguments import is_sequence, per_axis
from lcmulti.geometry.of_call import samples_error
from lcmulti.geometry.padding import explicit_padding
from lcmulti.geometry.shapes import window_extent
from lcmulti_jax.compat import shard_map

__all__ = [
    "at_every_position", "checked", "checked_sample", "in_words", "normalised_padding",
    "shared_mean", "sizes",
]  # fmt: skip

DRAWN_AT_ONCE = 2**20
"""Number of elements for one call of an initialiser."""


def at_every_position(
    init: Callable[[Any, tuple[int, ...]], Any],
    key: Any,
    positions: tuple[int, ...],
    shape: Any,
    sharding: NamedSharding | None = None,
) -> Array:
    """Draw ``init(key, shape)`` anew at each position: ``(*positions, *shape)``.

    An initialiser that is given the whole shape would count positions as fan-in. With a *sharding*,
    each device draws its own positions; positions beyond *positions* are zeros. The values do not
    depend on the sharding.
    """
    if sharding is None:
        return _drawn(init, jax.random.split(key, prod(positions)), positions, shape)
    mesh, names = sharding.mesh, (*sharding.spec, *(None,) * len(positions))[: len(positions)]
    parts = [prod(mesh.shape[n] for n in _tuple(each)) for each in names]
    padded = tuple(-(-n // part) * part for n, part in zip(positions, parts, strict=True))
    spread = PartitionSpec(*names)

    def draw(key: Any) -> Array:
        keys = jax.random.key_data(jax.random.split(key, prod(positions)))
        keys = keys.reshape(*positions, keys.shape[-1])
        more = [(0, m - n) for n, m in zip(positions, padded, strict=True)]
        keys = lax.with_sharding_constraint(
            jnp.pad(keys, [*more, (0, 0)]), NamedSharding(mesh, spread)
        )

        def own(keys: Any) -> Any:
            size, keys = keys.shape[:-1], keys.reshape(-1, keys.shape[-1])
            return _drawn(init, jax.random.wrap_key_data(keys, impl=implementation), size, shape)

        run = shard_map(own, mesh=mesh, in_specs=spread, out_specs=spread)
        drawn = run(keys)
        for axis, n in enumerate(positions):
            if padded[axis] > n:
                beyond = lax.broadcasted_iota(np.int32, drawn.shape, axis) >= n
                drawn = jnp.where(beyond, jnp.zeros((), drawn.dtype), drawn)
        return drawn

    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    implementation = jax.random.key_impl(key)
    return jax.jit(draw, out_shardings=sharding)(key)


def _drawn(init: Any, keys: Any, positions: tuple[int, ...], shape: Any) -> Array:
    """Draw some positions at a time, because *init* holds several arrays as large as its result.

    The last few may be drawn twice.
    """
    count = prod(positions)
    draw = jax.vmap(lambda each: init(each, shape))
    some = max(DRAWN_AT_ONCE // max(prod(shape), 1), 1)
    if some >= count:
        return draw(keys).reshape(*positions, *shape)

    def step(index: Any, drawn: Any) -> Any:
        start = jnp.minimum(index * some, count - some)
        part = draw(lax.dynamic_slice_in_dim(keys, start, some))
        return lax.dynamic_update_slice_in_dim(drawn, part, start, 0)

    drawn = jax.eval_shape(draw, keys)
    drawn = lax.fori_loop(0, ceil(count / some), step, jnp.zeros(drawn.shape, drawn.dtype))
    return drawn.reshape(*positions, *shape)


def _tuple(names: Any) -> tuple[str, ...]:
    return () if names is None else (names,) if isinstance(names, str) else tuple(names)


def normalised_padding(
    padding: Any,
    input_size: tuple[int, ...],
    kernel_size: tuple[int, ...],
    strides: tuple[int, ...],
    dilation: tuple[int, ...],
) -> tuple[Any, str]:
    """Padding and padding mode for `LocalConvSpec`, from padding as JAX's libraries write it.

    In addition to lcmulti's names, in any case: ``"SAME_LOWER"`` (an odd one is at the start),
    ``"CIRCULAR"`` and ``"REFLECT"`` (as much as keeps the size at stride 1, filled in this mode).
    """
    name = padding.upper() if isinstance(padding, str) else ""
    if name == "SAME_LOWER":
        pairs = explicit_padding("same", input_size, kernel_size, strides, dilation)
        return tuple((high, low) for low, high in pairs), "zeros"
    if name in ("CIRCULAR", "REFLECT"):
        extents = map(window_extent, kernel_size, dilation)
        return tuple(((n - 1) // 2, n // 2) for n in extents), name.lower()
    return padding, "zeros"


def sizes(
    kernel_size: Any, input_size: Any, strides: Any, dilation: Any
) -> tuple[tuple[int, ...], ...]:
    """Input size, kernel size, strides and dilation; one int for each axis of *kernel_size*.

    An int for *kernel_size* means one axis. None for strides or dilation means 1, as in Flax.
    """
    axes = len(kernel_size) if is_sequence(kernel_size) else 1
    return (
        per_axis("input_size", input_size, axes),
        per_axis("kernel_size", kernel_size, axes),
        per_axis("strides", 1 if strides is None else strides, axes),
        per_axis("dilation", 1 if dilation is None else dilation, axes),
    )


@contextmanager
def in_words(words: Mapping[str, str]) -> Iterator[None]:
    """Errors about the geometry use a library's own names of arguments, where *words* has one."""
    try:
        yield
    except ArgumentError as error:
        raise error.about(words.get(error.argument, error.argument)) from None


def checked(shape: tuple[int, ...], wanted: tuple[int, ...], advice: str) -> None:
    """Raise if samples have another shape than the weights were made for."""
    if shape != wanted:
        raise samples_error("inputs", shape, wanted, advice)


def checked_sample(shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """As `checked`, for a layer that takes one sample, channels first."""
    advice = "it takes one sample, and jax.vmap(layer) a batch"
    if len(shape) == len(wanted):
        rebuild = f"in_channels={shape[0]}, input_size={shape[1:]}"
        advice = f"for these build a layer with {rebuild}"
        if shape == (*wanted[1:], wanted[0]):
            advice = "these are channels last; jnp.moveaxis(x, -1, 0) puts the channels first"
    checked(shape, wanted, advice)


def shared_mean(weights: Any, axes: tuple[int, ...]) -> Array:
    """The mean over position *axes*, repeated at every position."""
    return jnp.broadcast_to(weights.mean(axes, keepdims=True), weights.shape)
