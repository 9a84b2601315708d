"""Pair the arrays of a ``.h5`` file with the variables of a model.

Such a file lists the layers of the model and, for each of them, all arrays within it in one list,
the trainable ones first. So the order within a nested model depends on what was frozen when it was
saved, and names are more reliable. If names, structure and shapes leave more than one way, the file
is refused: otherwise two layers of the same shape could silently get each other's weights.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from lcmulti_keras.legacy import names, structure
from lcmulti_keras.legacy.ambiguity import ambiguous
from lcmulti_keras.legacy.contents import OF_METRICS, Array, Group
from lcmulti_keras.legacy.fitting import Fitting
from lcmulti_keras.legacy.origins import Layer, Origins
from lcmulti_keras.legacy.pairing import Pairs, by_key, candidates, only_pairing, two_runs
from lcmulti_keras.legacy.structure import Slot

__all__ = ["ByName", "Entry"]

Pair = tuple[Array, Slot]


@dataclass(frozen=True)
class Entry:
    """A layer of the model and all variables in it; without a layer, the model's own variables."""

    layer: Layer | None
    name: str
    slots: tuple[Slot, ...]


class ByName:
    """Pairs arrays with the variables of one model.

    Parameters
    ----------
    model : keras.Model
    origins : Origins
    fitting : Fitting
    """

    def __init__(self, model: keras.Model, origins: Origins, fitting: Fitting) -> None:
        self.model = model
        self.origins = origins
        self.fitting = fitting
        self.refuse = fitting.refuse
        self.entries = _entries(model, origins)

    def pairs(self, groups: Sequence[Group]) -> list[Pair]:
        """Pair every array with a variable.

        Raises
        ------
        FileError
            If there is no way, or more than one.
        """
        entries = self.entries
        found = self.layers(groups, entries)
        return [
            pair for i, j in sorted(found.items()) for pair in self.inside(groups[i], entries[j])
        ]

    # The layers of the model --------------------------------------------------------------

    def layers(
        self, groups: Sequence[Group], entries: Sequence[Entry], *, must_fit: bool = False
    ) -> Pairs:
        """Pair the layers of the file with those of the model, all of both.

        Parameters
        ----------
        must_fit : bool
            Whether to raise here if something does not fit, instead of when it is assigned.
        """
        named = by_key([names.flat(g.name) for g in groups], [names.flat(e.name) for e in entries])
        if self.origins.known and len(named) == len(groups) == len(entries):
            return named
        certain = {i: j for i, j in named.items() if not self._is_automatic(entries[j])}
        theirs = [i for i in range(len(groups)) if i not in certain]
        ours = [j for j in range(len(entries)) if j not in certain.values()]
        if len(theirs) != len(ours):
            raise self.refuse(
                f"has {len(groups)} layers with weights, the model has {len(entries)}; "
                "by_name=True takes those whose names are the same"
            )
        rest = self._rest([groups[i] for i in theirs], [entries[j] for j in ours], must_fit)
        return certain | {theirs[i]: ours[j] for i, j in rest.items()}

    def _rest(self, groups: Sequence[Group], entries: Sequence[Entry], must_fit: bool) -> Pairs:
        """Pair layers that have automatic or different names; all of both."""
        in_order = {i: i for i in range(len(groups))}
        if self.origins.known or structure.is_chain(self.model):
            return in_order
        renamed = names.renumbered(
            (g.name for g in groups), (e.name for e in entries if self._is_automatic(e))
        )
        named = by_key([renamed.get(g.name) for g in groups], [e.name for e in entries])
        sure = structure.is_order_sure(self.model, self.origins)
        if len(named) == len(groups) and (named == in_order or not sure):
            return named
        if len(groups) == 1:
            return in_order
        edges = candidates(groups, entries, self._fits)
        only = only_pairing(edges, len(entries))
        if only is None and not all(edges) and not must_fit:
            return in_order  # this cannot be right; an error will name the layer that does not fit
        if only is None:
            raise ambiguous(self.refuse, [g.name for g in groups], [e.name for e in entries], edges)
        return only

    def _is_automatic(self, entry: Entry) -> bool:
        return entry.layer is not None and names.is_automatic(entry.layer, self.origins)

    def _fits(self, group: Group, entry: Entry) -> bool:
        """Whether each array of a layer fits a variable of another, and the other way around."""
        if len(group.arrays) != len(entry.slots):
            return False
        edges = self._edges(group.arrays, entry.slots)
        return all(edges) and len(set().union(*edges)) == len(entry.slots)

    # The variables within a layer ---------------------------------------------------------

    def inside(self, group: Group, entry: Entry) -> list[Pair]:
        """Pair the arrays of one layer of the model."""
        slots, arrays = entry.slots, self._without_metrics(group, entry)
        if len(arrays) != len(slots):
            raise self.refuse(f"has {len(arrays)} weights for {group.name!r:.80}, not {len(slots)}")
        if len({id(slot.owner) for slot in slots}) > 1:
            found = self.by_names(arrays, slots)
            if found is None and not self._is_order_fixed(slots):
                edges = self._edges(arrays, slots)
                found = only_pairing(edges, len(slots))
                if found is None and all(edges):
                    shown = ["/".join(names.tokens_of(s.chain, self.origins)) for s in slots]
                    raise ambiguous(self.refuse, [a.scope for a in arrays], shown, edges)
            if found is not None:
                return [(arrays[i], slots[j]) for i, j in found.items()]
        return list(zip(arrays, _aligned(arrays, structure.as_saved(slots)), strict=True))

    def _without_metrics(self, group: Group, entry: Entry) -> list[Array]:
        """The arrays of a layer; nested models also list those of their metrics."""
        tails = {slot.variable.name for slot in entry.slots}
        spare = OF_METRICS - tails if len(group.arrays) > len(entry.slots) else ()
        return [each for each in group.arrays if each.tail not in spare]

    def by_names(self, arrays: Sequence[Array], slots: Sequence[Slot]) -> Pairs | None:
        """The only pairing in which all names agree, or None."""
        tokens = [
            (self.origins.name(self.model), *names.tokens_of(slot.chain, self.origins))
            for slot in slots
        ]
        automatic = {
            self.origins.name(layer)
            for layer in {*(each for slot in slots for each in slot.chain), self.model}
            if names.is_automatic(layer, self.origins)
        }
        scopes = [each.scope for each in arrays]
        parts = {part for scope in scopes for part in scope.split("/")}
        renamed = names.renumbered(parts, automatic)
        again = ["/".join(renamed.get(part, part) for part in s.split("/")) for s in scopes]
        for scope in (scopes, again):
            found = self._agreeing(scope, arrays, tokens, slots)
            if found is not None and self._is_explained(found, slots):
                return found
        return None

    def _agreeing(
        self,
        scopes: Sequence[str],
        arrays: Sequence[Array],
        tokens: Sequence[tuple[str, ...]],
        slots: Sequence[Slot],
    ) -> Pairs | None:
        tails = [each.tail for each in arrays]
        wanted = [slot.variable.name for slot in slots]
        if sorted(tails) != sorted(wanted):
            return None
        last = [(scope.rpartition("/")[2], tail) if scope else None
                for scope, tail in zip(scopes, tails, strict=True)]  # fmt: skip
        found = by_key(last, [(each[-1], tail) for each, tail in zip(tokens, wanted, strict=True)])
        if len(found) == len(slots):
            return found

        def agree(theirs: int, ours: int) -> bool:
            return tails[theirs] == wanted[ours] and names.within(scopes[theirs], tokens[ours])

        every = range(len(slots))
        return only_pairing(candidates(every, every, agree), len(slots))

    def _is_explained(self, found: Pairs, slots: Sequence[Slot]) -> bool:
        """Whether freezing some parts, or none, gives the order of the arrays in the file.

        Automatic names tell in which order layers were made, so they must agree with the order.
        Names that a user chose need no such check.
        """
        if not all(structure.is_order_sure(m, self.origins) for m in _models(slots)):
            return True
        places = [found[i] for i in sorted(found)]
        return two_runs([j for j in places if names.is_automatic(slots[j].owner, self.origins)])

    def _is_order_fixed(self, slots: Sequence[Slot]) -> bool:
        """Whether the order decides: it depends on what was frozen, which the file may say."""

        def is_fixed(layer: Layer) -> bool:
            if isinstance(layer, keras.Model):
                return self.origins.known and id(layer) in self.origins.children
            return type(layer).__module__.startswith("keras.")  # not frozen separately

        return all(map(is_fixed, {each for slot in slots for each in slot.chain[:-1]}))

    def _edges(self, arrays: Sequence[Array], slots: Sequence[Slot]) -> list[set[int]]:
        known = sorted(a.tail for a in arrays) == sorted(s.variable.name for s in slots)

        def fits(array: Array, slot: Slot) -> bool:
            same = not known or array.tail == slot.variable.name
            return same and self.fitting.fits(array.stored, slot)

        return candidates(arrays, slots, fits)


def _entries(model: keras.Model, origins: Origins) -> list[Entry]:
    found, inner = [], set()
    for layer in structure.listed(model, origins):
        slots = tuple(structure.slots(layer, origins))
        inner |= {id(slot.variable) for slot in slots}
        if slots:
            found.append(Entry(layer, origins.name(layer), slots))
    own = tuple(s for s in structure.slots(model, origins) if id(s.variable) not in inner)
    return [*found, Entry(None, "", own)] if own else found


def _models(slots: Sequence[Slot]) -> set[Layer]:
    return {each for s in slots for each in s.chain[:-1] if isinstance(each, keras.Model)}


def _aligned(arrays: Sequence[Array], slots: Sequence[Slot]) -> list[Slot]:
    """Slots in the order of *arrays*.

    Both list the trainable ones first. If the others are in another order, weights with the same
    name are still in order among themselves.
    """
    tails = [each.tail for each in arrays]
    wanted = [slot.variable.name for slot in slots]
    if tails == wanted or sorted(tails) != sorted(wanted):
        return list(slots)  # in order, or with other names; shapes are always checked
    queues = {tail: deque(s for s in slots if s.variable.name == tail) for tail in set(tails)}
    return [queues[tail].popleft() for tail in tails]
