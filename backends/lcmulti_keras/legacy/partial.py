"""Take the weights from an old file that fit a model, and report what was taken.

For a model with another head or without one, or with parts from several files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import keras

from lcmulti.errors import FileError
from lcmulti_keras.legacy import names, structure
from lcmulti_keras.legacy.by_name import ByName, Entry
from lcmulti_keras.legacy.by_path import at_paths, walk
from lcmulti_keras.legacy.contents import Array, Group, below
from lcmulti_keras.legacy.fitting import Fitting
from lcmulti_keras.legacy.matches import Match, Stored
from lcmulti_keras.legacy.numbering import doubtful, only_in_place
from lcmulti_keras.legacy.origins import Layer, Origins

__all__ = ["LoadedWeights", "Taking"]


@dataclass(frozen=True)
class LoadedWeights:
    """The report of `load_legacy_weights`.

    Parameters
    ----------
    taken : tuple of str
        Names of layers of the model that now have weights of the file.
    kept : tuple of str
        Layers of the model whose weights are unchanged.
    left : dict of str to str
        Layers of the file that were not taken, with the reason.
    """

    taken: tuple[str, ...]
    kept: tuple[str, ...] = ()
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        rows = [f"taken ({len(self.taken)}): {', '.join(self.taken)}"]
        if self.kept:
            rows.append(f"kept as they were ({len(self.kept)}): {', '.join(self.kept)}")
        rows += [f"left in the file: {name} ({why})" for name, why in self.left.items()]
        return "\n".join(rows)


class Taking:
    """Pairs some of a file's arrays with some of a model's variables.

    Parameters
    ----------
    model : keras.Model
    origins : Origins
    fitting : Fitting
    skip_mismatch : bool
        Whether to leave out what does not fit, instead of refusing the file.

    Attributes
    ----------
    matches : list of Match
    left : dict of str to str
    """

    def __init__(
        self, model: keras.Model, origins: Origins, fitting: Fitting, *, skip_mismatch: bool
    ) -> None:
        self.pairing = ByName(model, origins, fitting)
        self.origins = origins
        self.fitting = fitting
        self.skip_mismatch = skip_mismatch
        self.matches: list[Match] = []
        self.left: dict[str, str] = {}

    def in_place(self, groups: Sequence[Group]) -> None:
        """Pair each layer with its counterpart in a model with the same number of layers."""
        entries = self.pairing.entries
        found = self.pairing.layers(groups, entries, must_fit=True)
        for theirs, ours in found.items():
            self._take(groups[theirs], entries[ours])

    def named(self, groups: Sequence[Group]) -> None:
        """Pair each layer with the one of the same name.

        If a user chose its name, a layer of a nested model in the file may be a layer of the model
        itself, and the other way around.
        """
        self._require_sure_numbers(groups)
        entries = {names.flat(each.name): each for each in self.pairing.entries}
        rest = []
        for group in groups:
            entry = entries.get(names.flat(group.name))
            if entry is not None and self._take(group, entry):
                del entries[names.flat(group.name)]
            else:
                rest.append(group)
        found: dict[str, dict[int, Array]] = {}
        for array in (each for group in rest for each in group.arrays):
            for name in {*array.scope.split("/"), names.flat(array.scope)}:
                found.setdefault(name, {})[id(array)] = array
        taken: set[int] = set()
        for entry in entries.values():
            for layer in structure.everything(entry.layer) if entry.layer else ():
                self._named_within(layer, found.get(self.origins.name(layer), {}), taken)
        for group in rest:
            if all(id(each) in taken for each in group.arrays):
                self.left.pop(group.name, None)
            else:
                self.left.setdefault(group.name, "the model has no layer of this name")

    def _require_sure_numbers(self, groups: Sequence[Group]) -> None:
        """Refuse a file with names by Keras that do not tell which layer is which.

        The second ``Dense`` of a model, ``dense_1``, is ``dense`` in a model without the first.
        """
        theirs: dict[str, dict[int, Group]] = {}
        for group in groups:
            stem, number = names.split_number(group.name)
            theirs.setdefault(stem, {})[number] = group
        ours: dict[str, dict[int, Entry]] = {}
        for entry in self.pairing.entries:
            if entry.layer is not None and names.is_automatic(entry.layer, self.origins):
                stem, number = names.split_number(entry.name)
                ours.setdefault(stem, {})[number] = entry
        for stem in theirs.keys() & ours.keys():
            both = theirs[stem].keys() & ours[stem].keys()
            if not both or theirs[stem].keys() == ours[stem].keys():
                continue
            numbers = [sorted(each[stem]) for each in (theirs, ours)]
            if any(a != b for a, b in zip(*numbers, strict=False)) or not only_in_place(
                [{"": [each.stored for each in theirs[stem][n].arrays]} for n in numbers[0]],
                [{"": list(ours[stem][n].slots)} for n in numbers[1]],
                self.fitting.fits,
            ):
                raise self.fitting.refuse(
                    f"has other layers that Keras named {stem!r} than the model, and nothing but "
                    "their numbers tells which is which; give the layers names"
                )

    def _named_within(self, layer: Layer, arrays: dict[int, Array], taken: set[int]) -> None:
        """Take for a layer with a chosen name the arrays that have this name in their scope."""
        inside = tuple(each for key, each in arrays.items() if key not in taken)
        slots = tuple(structure.slots(layer, self.origins))
        if not inside or not slots or names.is_automatic(layer, self.origins):
            return
        name = self.origins.name(layer)
        if self._take(Group(name, inside), Entry(layer, name, slots)):
            taken |= {id(each) for each in inside}

    def at_paths(self, arrays: dict[str, Stored]) -> None:
        """Take the arrays at the path of each layer."""
        model, left = self.pairing.model, dict(arrays)
        places = at_paths(model, self.origins)
        layers = {"/".join(place) for _, place in walk(model, self.origins)}
        for where in doubtful(arrays, places, layers, self.fitting.fits):
            raise self.fitting.refuse(
                f"has another number of layers than the model at {where}, and nothing but their "
                "numbers tells which is which"
            )
        for path, slots in places:
            inside = below(left, path)
            shown = path.removesuffix("/vars")
            group = Group(shown, tuple(Array(each, inside[each]) for each in inside))
            if inside and self._take(group, Entry(slots[0].owner, shown, tuple(slots))):
                for each in inside:
                    del left[each]
        for each in left:
            where = each.rpartition("/vars/")[0]
            self.left.setdefault(where, "the model has no layer there")

    def said(self) -> LoadedWeights:
        """Report what was taken, what was left, and what is unchanged."""
        done = {id(each.variable) for each in self.matches}
        rows: dict[bool, dict[str, None]] = {True: {}, False: {}}
        for entry in self.pairing.entries:
            for slot in entry.slots:
                name = (
                    "/".join(names.tokens_of(slot.chain, self.origins)) if entry.layer else "itself"
                )
                rows[id(slot.variable) in done][name] = None
        return LoadedWeights(tuple(rows[True]), tuple(rows[False]), dict(self.left))

    def _take(self, group: Group, entry: Entry) -> bool:
        try:
            pairs = [(array.stored, slot) for array, slot in self.pairing.inside(group, entry)]
            self.matches += self.fitting.all_of(pairs)
        except FileError as error:
            if not self.skip_mismatch:
                hint = "; skip_mismatch=True leaves what does not fit"
                raise self.fitting.refuse(f"{error.reason}{hint}") from None
            self.left[group.name] = error.reason
            return False
        return True
