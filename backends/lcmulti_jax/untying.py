"""The common part of untying for Flax NNX and Equinox, without importing either."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.untying import Row

__all__ = ["STACKED", "Seen", "reason_to_stay", "row", "started"]

STACKED = "its weights are those of several convolutions, stacked for vmap or scan"


@dataclass(eq=False)
class Seen:
    """What a trace of the example showed of one convolution.

    Parameters
    ----------
    sizes : list of tuple
        Spatial sizes of its inputs.
    elsewhere : bool
        Whether its weights were read by something else, which expects those of a convolution.
    """

    sizes: list[tuple[int, ...]] = field(default_factory=list)
    elsewhere: bool = False


def reason_to_stay(seen: Seen | None) -> str | None:
    """Why a convolution cannot be untied according to the trace, or None."""
    return "its weights are read elsewhere, too" if seen and seen.elsewhere else None


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
