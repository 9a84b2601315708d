"""Pair what a file has with what a model has, where there is one way and no other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise
from typing import TypeVar

__all__ = ["by_key", "candidates", "only_pairing", "two_runs"]

Theirs = TypeVar("Theirs")
Ours = TypeVar("Ours")
Pairs = dict[int, int]
"""Index of one of theirs to index of one of ours."""


def by_key(theirs: Sequence[Hashable | None], ours: Sequence[Hashable | None]) -> Pairs:
    """Pair what has one key, where no other on either side has it; None is no key."""
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
    """For each of *theirs*, which of *ours* it fits."""
    return [{i for i, mine in enumerate(ours) if fits(each, mine)} for each in theirs]


def only_pairing(edges: Sequence[set[int]], count: int) -> Pairs | None:
    """The one pairing of all of theirs with all of *count* ours; None if there is none or several.

    A graph with exactly one perfect matching has a vertex of degree one on each side (Kotzig
    1959), so taking forced pairs away until none is left finds it.
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
    """Whether places ascend, or do so in a first and again in a second part.

    So do those of weights in a file, which has what trained before what did not.
    """
    return sum(a > b for a, b in pairwise(places)) <= 1
