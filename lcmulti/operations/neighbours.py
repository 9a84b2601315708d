"""Cosines of filters that are neighbours on a sheet."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import NamedTuple, Protocol, cast, runtime_checkable

import numpy as np

from lcmulti import plugins
from lcmulti.choosing.settings import current
from lcmulti.errors import PluginError
from lcmulti.operations.pairs import Pair, Range, products, taken
from lcmulti.plugins.contract import Backend, Facts, Resources
from lcmulti.types import Array

__all__ = ["CosineMaps", "Link", "composed", "cosines"]

TINY = 1e-24
"""Squared length below which a filter counts as zero: its cosine and its gradient are 0."""


class Link(NamedTuple):
    """Some of the pairs of one direction: those of filters at certain places of their rectangles.

    Parameters
    ----------
    size : tuple of int
        Positions along each axis of the sheet.
    moves : tuple of (int, bool)
        For each position axis, the step from the first filter's position to the second's, and
        whether these are the pairs across the edges of the sheet.
    first, second : Range
        Two runs of filters; the filters in the same place of both are a pair.
    chosen : tuple of int
        The places in these runs where the two filters are neighbours.
    weight : float
        Of each pair's cosine.
    """

    size: tuple[int, ...]
    moves: tuple[tuple[int, bool], ...]
    first: Range
    second: Range
    chosen: tuple[int, ...]
    weight: float

    def pair(self, own: tuple[int, ...]) -> Pair:
        """The ranges to multiply, for an array with *own* positions: `size`, or 1 if shared."""
        ends = [
            ((0, 1, 1), (0, 1, 1)) if mine == 1 else _moved(n, *move)
            for mine, n, move in zip(own, self.size, self.moves, strict=True)
        ]
        return Pair((*(a for a, _ in ends), self.first), (*(b for _, b in ends), self.second))

    @property
    def pairs(self) -> int:
        """Number of pairs of neighbours."""
        ends = (_moved(n, *move)[0] for n, move in zip(self.size, self.moves, strict=True))
        return prod(len(range(*each)) for each in ends) * len(self.chosen)

    def weight_of(self, own: tuple[int, ...]) -> float:
        """Weight of one product of an array with *own* positions.

        Where positions share their weights, one product stands for all of them.
        """
        *positions, _ = self.pair(own).first
        return self.weight * self.pairs / (
            prod(len(range(*each)) for each in positions) * len(self.chosen)
        )  # fmt: skip


@runtime_checkable
class CosineMaps(Protocol):
    """Two methods that an implementation may have: `cosines` and its gradient, in one pass each.

    They are for kernels of two spatial axes. The weighted sum of all cosines is half the sum of
    ``sums[3]``. Its gradient in filter ``i`` is ``sums[0, i]`` times the weighted sum of
    ``sums[1, j] * filter[j]`` over its neighbours ``j``, less ``sums[2, i] * filter[i]``.
    (``sums[0]`` and ``sums[1]`` are one over the filters' lengths.)

    A backend makes them differentiable in a method ``neighbour_cosines(maps, kernel, bias, links,
    resources)``. Its *bias* is None, or has as many positions as the kernel along each axis, or 1.
    """

    def cosine_sums(
        self, kernel: Array, bias: Array, links: tuple[Link, ...], resources: Resources
    ) -> Array:
        """``sums`` of shape ``(4, *positions, filters)``. *bias* is ``(*positions, filters)``."""
        ...

    def cosine_slopes(
        self, array: Array, sums: Array, links: tuple[Link, ...], resources: Resources
    ) -> Array:
        """The gradient in *array*: the kernel, or the bias as ``(*positions, 1, filters)``.

        For a multiple of it, ``sums[0]`` and ``sums[2]`` are multiplied before. ``sums[3]`` is not
        read.
        """
        ...


def _moved(size: int, step: int, around: bool) -> tuple[Range, Range]:
    """Positions along one axis, and those *step* further; with *around*, the last and the first."""
    if around:
        return (size - 1, size, 1), (0, 1, 1)
    if step < 0:
        return (-step, size, 1), (0, max(size + step, 0), 1)
    return (0, max(size - step, 0), 1), (step, size, 1)


def _scale_of(lengths: Array) -> Array:
    """One over the length of each filter, given squared; 0 for a filter of zeros."""
    # The factors are multiplied one by one, because a higher power of `TINY` underflows in float32.
    inverse = (lengths + TINY) ** -0.5
    return lengths * inverse * inverse * inverse


def cosines(name: str, kernel: Array, bias: Array, links: tuple[Link, ...]) -> Array:
    """The weighted sum of the cosines of all linked filters, a scalar.

    Parameters
    ----------
    name : str
        Of the backend.
    kernel : array
        ``(*positions_shape, *kernel_size, channels, filters)``.
    bias : array or None
        ``(*positions, filters)``, 1 where shared: one more weight of each filter.
    links : tuple of Link
    """
    owner, settings = plugins.load_backend(name), current()
    close = getattr(owner, "neighbour_cosines", None)
    own = tuple(kernel.shape)[: len(links[0].size)] if links else ()
    fits = bias is None or all(n in (1, m) for n, m in zip(bias.shape, own, strict=False))
    if close is not None and fits and len(own) == 2:
        maps = _maps(name, owner.facts(kernel)._replace(shape=()), settings.implementation)
        if maps is not None:
            return close(maps, kernel, bias, links, settings.resources)
    return composed(owner, kernel, bias, links)


@lru_cache(maxsize=256)
def _maps(backend: str, facts: Facts, wanted: str) -> CosineMaps | None:
    """The preferred implementation that has these maps and serves arrays like this kernel."""
    for entry in plugins.registry().implementations_of(backend):
        if (
            wanted in ("auto", entry.name)
            and facts.dtype in entry.dtypes
            and (facts.device in entry.devices or not entry.devices)
            and (entry.transformable or not facts.transformed)
            and (entry.portable or not facts.exported)
        ):
            try:
                found = plugins.load_implementation(backend, entry.name)
            except PluginError:
                continue
            if isinstance(found, CosineMaps):
                return cast(CosineMaps, found)
    return None


def composed(owner: Backend, kernel: Array, bias: Array, links: tuple[Link, ...]) -> Array:
    """`cosines` in differentiable operations of a backend."""
    axes = len(kernel.shape) // 2 - 1
    total_of = f"{'abcdefgh'[:axes]}y->"

    def multiplied(array: Array) -> list[Array]:
        """The squared lengths of all filters, and the inner products of each link's pairs."""
        own = tuple(array.shape)[:axes]
        whole = tuple((0, n, 1) for n in (*own, array.shape[-1]))
        pairs = (Pair(whole, whole), *(link.pair(own) for link in links))
        if array is kernel:
            return products(owner, array, pairs)
        return [taken(array, first) * taken(array, second) for first, second in pairs]

    lengths, *dots = multiplied(kernel)
    if bias is not None:
        of_bias, *more = multiplied(bias)
        lengths = lengths + of_bias
        dots = [a + b for a, b in zip(dots, more, strict=True)]
    own, scale = tuple(lengths.shape)[:axes], _scale_of(lengths)
    total = owner.einsum(total_of, lengths) * 0
    for link, dot in zip(links, dots, strict=True):
        first, second = link.pair(own)
        each = dot * taken(scale, first) * taken(scale, second)
        if len(link.chosen) < len(range(*first[-1])):
            each = owner.take(each, np.asarray(link.chosen), axes)
        total = total + owner.einsum(total_of, each) * link.weight_of(own)
    return total
