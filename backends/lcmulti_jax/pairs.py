"""Products of pairs of filters, compiled as one, so that no product of kernels is ever stored.

Filters of one position meet in a matrix product, the quickest sum over a window that XLA has for
filters that lie innermost, unless all with all would take more memory than a part of the kernel.
"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp

from lcmulti.operations.pairs import Pair, taken

__all__ = ["pair_products"]

MOST_FILTERS, FEWEST_WEIGHTS = 128, 4
"""Filters up to which, and weights per filter from which on, all meet all."""


@partial(jax.jit, static_argnames="pairs")
def pair_products(kernel: Any, pairs: tuple[Pair, ...]) -> list[Any]:
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
            found.append(jnp.diagonal(square, offset, 2, 3)[..., start:stop])
    return found


@jax.custom_jvp
def _square(matrices: Any) -> Any:
    """Products of all columns with all, ``(*positions, filters, filters)``."""
    return _product(matrices, matrices)


@_square.defjvp
def _square_jvp(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
    # The product is symmetric, so one of matrices is enough, here and in the transpose.
    (matrices,), (tangent,) = primals, tangents
    half = _product(matrices, tangent)
    return _square(matrices), half + half.swapaxes(-1, -2)


def _product(a: Any, b: Any) -> Any:
    return jnp.einsum("rckf,rckg->rcfg", a, b, precision=jax.lax.Precision.HIGHEST)
