"""The common part of untying for Flax NNX and Equinox, without importing either."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from lcmulti.errors import ArgumentError, described
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.untying import Row, Untying, chosen

__all__ = ["called", "means", "one_size", "planned", "row", "started"]


def called(model: Any, example: Any) -> Array:
    """Call the model with the example: positional arguments, named ones, or a single one."""
    if isinstance(example, dict):
        return model(**example)
    return model(*example) if isinstance(example, (tuple, list)) else model(example)


def one_size(name: str, seen: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The input size of a convolution; raise if it has two."""
    if len(set(seen)) > 1:
        shown = " and ".join(map(str, sorted(set(seen))))
        raise ArgumentError(
            "model",
            f"convolutions that see one size ({name!r} may be left out with where=)",
            described(f"{name!r}, which is called on {shown}"),
        )
    return seen[0]


def planned(
    convolutions: dict[str, Any], seen: dict[str, list[tuple[int, ...]]], where: Any,
    unfit: Callable[[Any], str | None], row: Callable[[str, Any, tuple[int, ...]], Row],
) -> tuple[Untying, dict[str, tuple[int, ...]]]:  # fmt: skip
    """The table of what will be done, and the input sizes of the convolutions.

    Raises
    ------
    ArgumentError
        If *where* names a convolution that cannot be untied, or if none can.
    """
    rows, left, sizes = [], [], {}
    for name, conv in chosen(where, convolutions.items()):
        why = unfit(conv) or (None if name in seen else "the example does not reach it")
        if why and where is not None:
            shown = described(f"{name}: {why}")
            raise ArgumentError("where", "convolutions that can be untied", shown)
        if why:
            left.append((name, why))
            continue
        sizes[name] = one_size(name, seen[name])
        try:
            rows.append(row(name, conv, sizes[name]))
        except ArgumentError as error:
            raise error.about(f"{name}: {error.argument}") from None
    if not rows:
        shown = described(", ".join(f"{n} ({why})" for n, why in left) or "none")
        raise ArgumentError("model", "a network with convolutions that the example reaches", shown)
    return Untying(tuple(rows), tuple(left)), sizes


def row(
    name: str, conv: Any, spec: LocalConvSpec, shapes: dict[str, tuple[int, ...]], before: int,
    dtype: Any,
) -> Row:  # fmt: skip
    """The row of the table for a layer whose parameters have these shapes."""
    after = sum(map(prod, shapes.values()))
    kind, positions = type(conv).__name__, spec.positions_shape
    return Row(name, kind, spec.kernel_size, positions, before, after, np.dtype(dtype).itemsize)


def started(
    shapes: dict[str, tuple[int, ...]], kernel: Array, bias: Array, key: Any
) -> dict[str, Any]:
    """Parameters of a layer that computes the convolution; with a rank, the basis begins with it.

    Parameters
    ----------
    shapes : dict
        Of those there are of ``kernel``, ``basis``, ``coefficients`` and ``bias``.
    kernel, bias : array
        ``(*kernel_size, channels of a group, filters)`` and ``(filters,)``.
    key : PRNG key
        Key for the other kernels of low-rank weights.
    """
    import jax

    found = {}
    for name, shape in shapes.items():
        if name == "kernel":
            found[name] = jnp.broadcast_to(kernel, shape)
        elif name == "bias":
            found[name] = jnp.broadcast_to(bias, shape)
        elif name == "basis":
            bound = (3 / prod(kernel.shape[:-1])) ** 0.5
            drawn = jax.random.uniform(key, shape, kernel.dtype, -bound, bound)
            found[name] = drawn.at[0].set(kernel.reshape(shape[1:]))
        else:
            found[name] = jnp.zeros(shape, kernel.dtype).at[..., 0].set(1)
    return found


def means(
    name: str, weights: dict[str, Any], axes: tuple[int, ...], tolerance: float | None
) -> dict[str, Any]:
    """Each of the weights, without positions; raise if positions differ."""
    found = {}
    for label, values in weights.items():
        if values is None:
            continue
        apart = float((values.max(axes) - values.min(axes)).max())
        if tolerance is not None and not apart <= tolerance:
            raise ArgumentError(
                f"{name}.{label}",
                f"the same at every position within {tolerance} "
                "(retie(tolerance=None) takes the mean)",
                described(f"weights that differ by up to {apart:.3g} between positions"),
            )
        # The mean of equal numbers could be rounded.
        found[label] = values.mean(axes) if apart else values[(0,) * len(axes)]
    return found
