"""Inner products of pairs of filters of one kernel, by which neighbours on a sheet are compared."""

from __future__ import annotations

from typing import Any, NamedTuple

from lcmulti.plugins.contract import Backend
from lcmulti.types import Array

__all__ = ["Pair", "Range", "products", "taken"]

Range = tuple[int, int, int]
"""Start, stop and step, as of a slice. Unlike a slice, a tuple can be hashed."""


class Pair(NamedTuple):
    """Two parts of a kernel, of the same shape. Each filter is paired with the one in its place.

    Parameters
    ----------
    first, second : tuple of Range
        A range of each position axis and, last, of the filters.
    """

    first: tuple[Range, ...]
    second: tuple[Range, ...]


def taken(array: Array, ranges: tuple[Range, ...]) -> Array:
    """The part of ``(*positions, .., filters)`` in these ranges; a view where the framework can."""
    *positions, filters = (slice(*each) for each in ranges)
    return array[(*positions, ..., filters)]


def products(owner: Backend, kernel: Array, pairs: tuple[Pair, ...]) -> list[Array]:
    """For each pair, the sum over window and channels of the products: ``(*positions, filters)``.

    A backend that can do this, and its derivative, without copies of a kernel of two spatial axes
    has a method ``pair_products(kernel, pairs)``. All others are products of its ``einsum``.

    Parameters
    ----------
    owner : Backend
    kernel : array
        ``(*positions_shape, *kernel_size, channels, filters)``.
    pairs : tuple of Pair
        The first one pairs each filter with itself.
    """
    axes = len(kernel.shape) // 2 - 1
    own = getattr(owner, "pair_products", None)
    if own is not None and axes == 2:
        found: list[Any] = own(kernel, pairs)
        return found
    positions, window = "abcdefgh"[:axes], "ijklmnop"[:axes]
    weights = f"{positions}{window}xy"
    return [
        owner.einsum(f"{weights},{weights}->{positions}y", *(taken(kernel, each) for each in pair))
        for pair in pairs
    ]
