"""What untying has in common for Flax NNX and Equinox; neither is imported here."""

from __future__ import annotations

from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.untying import Row

__all__ = ["called", "row", "started"]


def called(model: Any, example: Any) -> Any:
    """Call with the example: arguments by position, by name, or the only one."""
    if isinstance(example, dict):
        return model(**example)
    return model(*example) if isinstance(example, (tuple, list)) else model(example)


def row(
    name: str, conv: Any, spec: LocalConvSpec, shapes: dict[str, tuple[int, ...]], before: int,
    dtype: Any,
) -> Row:  # fmt: skip
    """A row of the table for a layer whose parameters have these shapes."""
    after = sum(map(prod, shapes.values()))
    kind, positions = type(conv).__name__, spec.positions_shape
    return Row(name, kind, spec.kernel_size, positions, before, after, np.dtype(dtype).itemsize)


def started(shapes: dict[str, tuple[int, ...]], kernel: Any, bias: Any, key: Any) -> dict[str, Any]:
    """A layer's parameters: the convolution's everywhere, of low-rank ones in the first kernel.

    Parameters
    ----------
    shapes : dict
        Of those there are of ``kernel``, ``basis``, ``coefficients`` and ``bias``.
    kernel, bias : array
        ``(*kernel_size, channels of a group, filters)`` and ``(filters,)``.
    key : PRNG key
        What the other kernels of low-rank weights are drawn with.
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
