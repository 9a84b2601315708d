"""Pair the items of a file with those of a model if there is exactly one way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise
from typing import TypeVar

__all__ = ["by_key", "candidates", "only_pairing", "two_runs"]

Theirs = TypeVar("Theirs")
Ours = TypeVar("Ours")
Pairs = dict[int, int]
"""Maps an index of theirs to an index of ours."""


def by_key(theirs: Sequence[Hashable | None], ours: Sequence[Hashable | None]) -> Pairs:
    """Pair items with the same key if it is unique on both sides; None is not a key."""
    places: tuple[defaultdict[Hashable, list[int]], ...] = (defaultdict(list), defaultdict(list))
    for found, keys in zip(places, (theirs, ours), strict=True):
        for index, key in enumerate(keys):
            if key is not None:
                found[key].append(index)
    return {
        mine[0]: yours[0]
        for key, mine in places[0].items()
        if len(mine) == 1 and len(yours := places[1].get(key, [])) == 1
    }


def candidates(
    theirs: Sequence[Theirs], ours: Sequence[Ours], fits: Callable[[Theirs, Ours], bool]
) -> list[set[int]]:
    """For each of *theirs*, the set of *ours* that it fits."""
    return [{i for i, mine in enumerate(ours) if fits(each, mine)} for each in theirs]


def only_pairing(edges: Sequence[set[int]], count: int) -> Pairs | None:
    """The only pairing of all of theirs with all *count* of ours; None if there is none or several.

    A graph with exactly one perfect matching has a vertex of degree one on each side (Kotzig
    1959). So removing forced pairs until none is left finds it.
    """
    if len(edges) != count:
        return None
    left = [set(each) for each in edges]
    back: list[set[int]] = [set() for _ in range(count)]
    for theirs, each in enumerate(left):
        for ours in each:
            back[ours].add(theirs)
    pairs: Pairs = {}
    forced = [index for index, each in enumerate(left) if len(each) == 1]
    while forced:
        theirs = forced.pop()
        if theirs in pairs:
            continue
        if len(left[theirs]) != 1:
            return None
        (ours,) = left[theirs]
        pairs[theirs] = ours
        for other in back[ours] - {theirs}:
            left[other].discard(ours)
            if len(left[other]) == 1:
                forced.append(other)
    return pairs if len(pairs) == count else None


def two_runs(places: Sequence[int]) -> bool:
    """Whether places ascend, or ascend in a first part and again in a second part.

    Places of weights in a file do so, because trainable weights come before the others.
    """
    return sum(a > b for a, b in pairwise(places)) <= 1
