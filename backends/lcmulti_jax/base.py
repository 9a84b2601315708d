"""What the layers for Flax NNX and for Equinox have in common; neither is imported here."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

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
    init: Callable[[Any, tuple[int, ...]], Any], key: Any, positions: tuple[int, ...], shape: Any
) -> Any:
    """Draw ``init(key, shape)`` anew at each position: ``(*positions, *shape)``.

    An initialiser that saw the whole shape would count positions as fan-in. Some positions at a
    time, for it holds several arrays of the size that it draws; the last few twice.
    """
    count = prod(positions)
    keys = jax.random.split(key, count)
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


def shared_mean(weights: Any, axes: tuple[int, ...]) -> Any:
    """The mean over position *axes*, at every position again."""
    return jnp.broadcast_to(weights.mean(axes, keepdims=True), weights.shape)


def share(axes: Any, spec: LocalConvSpec) -> tuple[int, ...]:
    """Spatial axes to average along; None for all."""
    return tuple(range(spec.ndim)) if axes is None else spec.sharing(axes).shared_axes
