"""Products of pairs of filters, compiled as a whole, so that no product of kernels is stored.

Filters of one position are multiplied in a matrix product. For filters along the last axis, this is
XLA's fastest sum over a window. It is not used if the products of all pairs would take too much
memory compared with the kernel.
"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from lcmulti.operations.pairs import Pair, taken

__all__ = ["pair_products"]

MOST_FILTERS, FEWEST_WEIGHTS = 128, 4
"""All pairs are multiplied up to this many filters, and from this many weights per filter on."""


@partial(jax.jit, static_argnames="pairs")
def pair_products(kernel: Array, pairs: tuple[Pair, ...]) -> list[Array]:
    """See `lcmulti.operations.pairs.products`."""
    filters, window = kernel.shape[-1], tuple(range(2, kernel.ndim - 1))
    weights = prod(kernel.shape[2:-1])
    whole = pairs[0].first[:2]
    here = sum(first[:2] == second[:2] == whole for first, second in pairs)
    square = None
    if here > 1 and filters <= MOST_FILTERS and filters * FEWEST_WEIGHTS <= weights:
        square = _square(kernel.reshape(*kernel.shape[:2], weights, filters))
    found = []
    for first, second in pairs:
        offset = second[-1][0] - first[-1][0]
        apart = not first[:2] == second[:2] == whole
        if square is None or apart or first[-1][2] != 1:
            found.append((taken(kernel, first) * taken(kernel, second)).sum(window))
        else:
            start, stop, _ = first[-1]
            skip = min(start, start + offset)  # a diagonal begins at the upper or the left edge
            found.append(jnp.diagonal(square, offset, 2, 3)[..., skip : skip + stop - start])
    return found


@jax.custom_jvp
def _square(matrices: Array) -> Array:
    """Products of all pairs of columns, ``(*positions, filters, filters)``."""
    return _product(matrices, matrices)


@_square.defjvp
def _square_jvp(primals: tuple[Any], tangents: tuple[Array]) -> tuple[Any, Any]:
    # The product is symmetric, so one matrix product is enough, here and in the transpose.
    (matrices,), (tangent,) = primals, tangents
    half = _product(matrices, tangent)
    return _square(matrices), half + half.swapaxes(-1, -2)


def _product(a: Array, b: Array) -> Array:
    return jnp.einsum("rckf,rckg->rcfg", a, b, precision=jax.lax.Precision.HIGHEST)
