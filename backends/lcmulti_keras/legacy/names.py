"""Interpret the names of layers and weights in an old file.

Keras 2 named a weight after the scopes in which it was made, ``outer/block/lc_a/kernel:0``: the
names of some of the layers around it, from the outside in. A layer without a chosen name gets the
name of its class and a number, in Keras 2 and in Keras 3. So the numbers in one model differ from
those in another run by a constant for each class.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

import keras

from lcmulti_keras.legacy.origins import Layer, Origins

__all__ = [
    "flat",
    "is_automatic",
    "parted",
    "renumbered",
    "snake_case",
    "split_number",
    "tokens_of",
    "within",
]

NUMBERED = re.compile(r"(.+?)(?:_(\d+))?")
STEMS = {
    "batch_normalization_v1": "batch_normalization",
    "batch_normalization_v2": "batch_normalization",
    "cu_dnnlstm": "lstm",
    "cu_dnngru": "gru",
}
"""Classes that have another name in Keras 3."""


def snake_case(name: str) -> str:
    """Keras' own rule: ``LocallyConnected2D`` as ``locally_connected2d``."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def parted(name: str) -> tuple[str, str]:
    """``"inner/lc/kernel:0"`` as ``("inner/lc", "kernel")``."""
    scope, _, tail = name.rpartition("/")
    return scope, tail.partition(":")[0]


def tokens_of(chain: Iterable[Layer], origins: Origins) -> tuple[str, ...]:
    """Names that may be part of a weight's name, from the outside in.

    A wrapper calls its layer in its own scope, without the layer's name.
    """
    found: list[str] = []
    above: Layer | None = None
    for layer in chain:
        wrapped = isinstance(above, keras.layers.Wrapper) and not isinstance(layer, keras.Model)
        if not wrapped:
            found += origins.name(layer).split("/")
        above = layer
    return tuple(found)


def within(scope: str, tokens: tuple[str, ...]) -> bool:
    """Whether a scope in a file consists of some of the names around a weight, in order."""
    if "/" in scope and scope.replace("/", "_") in ("_".join(tokens), tokens[-1]):
        return True  # a name with slashes, which Keras 3 does not allow
    rest = iter(tokens)
    return all(part in rest for part in scope.split("/")) if scope else True


def flat(name: str) -> str:
    """A name in the form that Keras 3 allows."""
    return name.replace("/", "_")


def split_number(name: str) -> tuple[str, int]:
    """``"dense_3"`` as ``("dense", 3)``, and ``"dense"`` with 0."""
    match = NUMBERED.fullmatch(name)
    stem, number = match.groups() if match else (name, None)
    return STEMS.get(stem, stem), int(number or 0)


def is_automatic(layer: Layer, origins: Origins) -> bool:
    """Whether a layer has a name that Keras may have chosen."""
    stem, _ = split_number(origins.name(layer))
    return stem in {snake_case(each.__name__) for each in type(layer).__mro__} | {
        snake_case(origins.class_name(layer))
    }


def renumbered(theirs: Iterable[str], ours: Iterable[str]) -> dict[str, str]:
    """For each of *their* names, the one of *ours* that Keras chose at the same point.

    Names of one class are numbered in the order of construction. So the numbers of two models that
    are constructed alike differ by a constant. If no single constant fits, the names are left out.
    """
    numbers: tuple[defaultdict[str, set[int]], ...] = (defaultdict(set), defaultdict(set))
    theirs, ours = sorted(set(theirs)), set(ours)
    for found, names in zip(numbers, (theirs, ours), strict=True):
        for name in names:
            stem, number = split_number(name)
            found[stem].add(number)
    shown = {split_number(name): name for name in ours}
    if len(shown) < len(ours):  # "block" beside "block_0"
        return {}
    renamed: dict[str, str] = {}
    for name in theirs:
        stem, number = split_number(name)
        shifts = _shifts(numbers[0][stem], numbers[1][stem])
        if len(shifts) == 1:
            renamed[name] = shown[stem, number + shifts[0]]
    return renamed


def _shifts(theirs: set[int], ours: set[int]) -> list[int]:
    """Constants that map each number of *theirs* to one of *ours*."""
    candidates = {each - min(theirs) for each in ours}
    found = [shift for shift in candidates if {each + shift for each in theirs} <= ours]
    return [0] if 0 in found else found
