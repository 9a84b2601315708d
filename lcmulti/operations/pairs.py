"""Inner products of pairs of filters of one kernel: what a sheet's neighbours are compared by."""

from __future__ import annotations

from typing import Any, NamedTuple

from lcmulti.plugins.contract import Backend

__all__ = ["Pair", "Range", "products", "taken"]

Range = tuple[int, int, int]
"""Start, stop and step, like a slice; unlike one it can be hashed."""


class Pair(NamedTuple):
    """Two parts of a kernel of the same shape, whose filters are multiplied one with one.

    Parameters
    ----------
    first, second : tuple of Range
        Of each axis of positions and, last, of the filters.
    """

    first: tuple[Range, ...]
    second: tuple[Range, ...]


def taken(array: Any, ranges: tuple[Range, ...]) -> Any:
    """The part of ``(*positions, .., filters)`` that the ranges say, a view where there are any."""
    *positions, filters = (slice(*each) for each in ranges)
    return array[(*positions, ..., filters)]


def products(owner: Backend, kernel: Any, pairs: tuple[Pair, ...]) -> list[Any]:
    """For each pair, the sum over window and channels of the products: ``(*positions, filters)``.

    A backend that can do so without copies of the kernel, in the derivative as well, has a method
    ``pair_products(kernel, pairs)``; of any other the products are those of its ``einsum``.

    Parameters
    ----------
    owner : Backend
    kernel : array
        ``(*positions_shape, *kernel_size, channels, filters)`` of two spatial axes.
    pairs : tuple of Pair
        The first one pairs each filter with itself.
    """
    own = getattr(owner, "pair_products", None)
    if own is not None:
        found: list[Any] = own(kernel, pairs)
        return found
    return [
        owner.einsum("abijxy,abijxy->aby", taken(kernel, first), taken(kernel, second))
        for first, second in pairs
    ]
