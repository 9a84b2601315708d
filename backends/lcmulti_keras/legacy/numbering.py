"""Find where file and model have different numbers of a class, which only numbers could pair.

``.weights.h5`` files name the layers of a list by class and number, and so does Keras where the
user gives no name. In a model without the first ``Dense``, the second one becomes the first, and
would get the wrong weights if shapes allow it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TypeVar

from lcmulti_keras.legacy.contents import below
from lcmulti_keras.legacy.matches import Stored
from lcmulti_keras.legacy.names import split_number
from lcmulti_keras.legacy.structure import Slot

__all__ = ["doubtful", "only_in_place"]

T = TypeVar("T")
Unit = dict[str, list[T]]
"""The arrays below a layer in a list, by the rest of their paths."""
Fits = Callable[[Stored, Slot], bool]

MOST_WAYS = 1_000_000
"""Largest number of pairs of layers that are compared; above that, nothing is compared."""


def doubtful(
    arrays: dict[str, Stored],
    places: Sequence[tuple[str, list[Slot]]],
    layers: set[str],
    fits: Fits,
) -> list[str]:
    """Lists with more or fewer layers in the file than in the model that only numbers could pair.

    Parameters
    ----------
    arrays : dict of str to Stored
        By path.
    places : sequence of (str, list of Slot)
        As `by_path.at_paths` returns them.
    layers : set of str
        Paths of layers of the model; anything directly below one is an attribute, not in a list.
    fits : callable
        Whether an array fits a variable.
    """
    folders = {path.rpartition("/")[0] for path in arrays}
    theirs = _lists({each: list(below(arrays, each).values()) for each in folders})
    ours = _lists(dict(places))
    return [
        "/".join(part for part in where if part)
        for where in theirs.keys() & ours.keys()
        if where[0] not in layers
        and len(theirs[where]) != len(ours[where])
        and not only_in_place(list(theirs[where].values()), list(ours[where].values()), fits)
    ]


def _lists(at: Mapping[str, list[T]]) -> dict[tuple[str, str], dict[str, Unit[T]]]:
    """For each path of a list and each class, the layers in it by number."""
    found: dict[tuple[str, str], dict[str, Unit[T]]] = {}
    for path, each in at.items():
        parts = path.split("/")
        for i in range(1, len(parts)):
            stem, _ = split_number(parts[i])
            units = found.setdefault(("/".join(parts[:i]), stem), {})
            units.setdefault(parts[i], {})["/".join(parts[i + 1 :])] = each
    return {
        where: dict(sorted(units.items(), key=lambda item: split_number(item[0])[1]))
        for where, units in found.items()
    }


def only_in_place(theirs: Sequence[Unit[Stored]], ours: Sequence[Unit[Slot]], fits: Fits) -> bool:
    """Whether all of the shorter list fit those at the same places, and no others in order."""
    shorter = min(len(theirs), len(ours))
    if len(theirs) * len(ours) > MOST_WAYS:
        return False

    @cache
    def fit(i: int, j: int) -> bool:
        mine, yours = ours[j], theirs[i]
        return mine.keys() == yours.keys() and all(
            len(slots) == len(yours[rest]) and all(map(fits, yours[rest], slots))
            for rest, slots in mine.items()
        )

    # Number of ways to pair the first i of theirs with the first j of ours, using all of the
    # shorter.
    ways = {(i, j): 0 for i in range(len(theirs) + 1) for j in range(len(ours) + 1)}
    few_are_theirs = len(theirs) == shorter
    for i in range(len(theirs) + 1):
        for j in range(len(ours) + 1):
            taken, skipped = (i, j) if few_are_theirs else (j, i)
            if taken > skipped:
                continue
            if not taken:
                ways[i, j] = 1
                continue
            left = ways[(i, j - 1) if few_are_theirs else (i - 1, j)]
            ways[i, j] = left + (ways[i - 1, j - 1] if fit(i - 1, j - 1) else 0)
    return ways[len(theirs), len(ours)] == 1 and all(fit(i, i) for i in range(shorter))
