"""What the layers for Flax NNX and for Equinox have in common; neither is imported here."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from lcmulti.errors import ShapeError, described
from lcmulti.geometry.arguments import is_sequence, per_axis
from lcmulti.geometry.padding import explicit_padding
from lcmulti.geometry.shapes import window_extent
from lcmulti.geometry.spec import LocalConvSpec

__all__ = [
    "at_every_position", "checked", "normalised_padding", "share", "shared_mean", "sizes",
]  # fmt: skip

DRAWN_AT_ONCE = 2**20
"""Elements that an initialiser is asked for at once."""


def at_every_position(
    init: Callable[[Any, tuple[int, ...]], Any],
    key: Any,
    positions: tuple[int, ...],
    shape: Any,
    sharding: NamedSharding | None = None,
) -> Any:
    """Draw ``init(key, shape)`` anew at each position: ``(*positions, *shape)``.

    An initialiser that saw the whole shape would count positions as fan-in. With a *sharding* each
    device draws its own positions, of which there may be more than *positions*: those are zeros.
    The values are the same without one.
    """
    if sharding is None:
        return _drawn(init, jax.random.split(key, prod(positions)), positions, shape)
    mesh, names = sharding.mesh, (*sharding.spec, *(None,) * len(positions))[: len(positions)]
    parts = [prod(mesh.shape[n] for n in _tuple(each)) for each in names]
    padded = tuple(-(-n // part) * part for n, part in zip(positions, parts, strict=True))
    spread = PartitionSpec(*names)

    def draw(key: Any) -> Any:
        keys = jax.random.key_data(jax.random.split(key, prod(positions)))
        keys = keys.reshape(*positions, keys.shape[-1])
        more = [(0, m - n) for n, m in zip(positions, padded, strict=True)]
        keys = lax.with_sharding_constraint(
            jnp.pad(keys, [*more, (0, 0)]), NamedSharding(mesh, spread)
        )

        def own(keys: Any) -> Any:
            size, keys = keys.shape[:-1], keys.reshape(-1, keys.shape[-1])
            return _drawn(init, jax.random.wrap_key_data(keys, impl=implementation), size, shape)

        run = jax.shard_map(own, mesh=mesh, in_specs=spread, out_specs=spread, check_vma=False)
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


def _drawn(init: Any, keys: Any, positions: tuple[int, ...], shape: Any) -> Any:
    """Some positions at a time, for *init* holds several arrays as large as what it draws.

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
    """Padding and padding mode for `LocalConvSpec` from the spellings JAX's libraries have.

    Beyond lcmulti's own: ``"SAME_LOWER"`` (the odd one before), ``"CIRCULAR"`` and ``"REFLECT"``
    (as much as keeps the size at stride 1, filled so), in any case.
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
    """Input size, kernel size, strides and dilation, one int per axis that *kernel_size* has.

    An int for it is one axis; no strides or dilation are 1, as in Flax.
    """
    axes = len(kernel_size) if is_sequence(kernel_size) else 1
    return (
        per_axis("input_size", input_size, axes),
        per_axis("kernel_size", kernel_size, axes),
        per_axis("strides", 1 if strides is None else strides, axes),
        per_axis("dilation", 1 if dilation is None else dilation, axes),
    )


def checked(shape: tuple[int, ...], wanted: tuple[int, ...], advice: str) -> None:
    """Refuse samples of another shape than the weights were made for."""
    if shape != wanted:
        raise ShapeError(
            "inputs",
            f"samples of shape {wanted}, which the weights were made for",
            described(f"{shape}; {advice}"),
        )


def checked_sample(shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """The same for a layer that takes one sample, channels first."""
    advice = "it takes one sample, and jax.vmap(layer) a batch"
    if len(shape) == len(wanted):
        rebuild = f"in_channels={shape[0]}, input_size={shape[1:]}"
        advice = f"for these build a layer with {rebuild}"
        if shape == (*wanted[1:], wanted[0]):
            advice = "these are channels last; jnp.moveaxis(x, -1, 0) puts the channels first"
    checked(shape, wanted, advice)


def shared_mean(weights: Any, axes: tuple[int, ...]) -> Any:
    """The mean over position *axes*, at every position again."""
    return jnp.broadcast_to(weights.mean(axes, keepdims=True), weights.shape)


def share(axes: Any, spec: LocalConvSpec) -> tuple[int, ...]:
    """Spatial axes to average along; None for all."""
    return tuple(range(spec.ndim)) if axes is None else spec.sharing(axes).shared_axes
