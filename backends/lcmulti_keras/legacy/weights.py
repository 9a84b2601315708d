"""Find each weight of a model in an old file, check its shape, and convert it.

Matching reads no array; only assigning does. `by_name` pairs the arrays of ``.h5`` files, and
`by_path` those of ``.keras`` and ``.weights.h5`` files. `fitting` knows the layouts.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import keras

from lcmulti.errors import FileError
from lcmulti_keras.layers import LocallyConnected
from lcmulti_keras.legacy import contents
from lcmulti_keras.legacy.ambiguity import ORDER, ambiguous
from lcmulti_keras.legacy.by_graph import in_checkpoint
from lcmulti_keras.legacy.by_name import ByName
from lcmulti_keras.legacy.by_path import at_paths, of_metrics, unsure
from lcmulti_keras.legacy.fitting import Fitting
from lcmulti_keras.legacy.matches import Match, Stored
from lcmulti_keras.legacy.origins import Origins
from lcmulti_keras.legacy.partial import LoadedWeights, Taking
from lcmulti_keras.legacy.stored import Archive
from lcmulti_keras.legacy.structure import Slot, everything

__all__ = ["assign", "local_layers", "match", "take"]


def match(path: Path, archive: Archive, model: keras.Model, origins: Origins) -> list[Match]:
    """Pair every weight of *model* with an array of the right shape.

    Parameters
    ----------
    path : Path
        For messages.
    archive : Archive
    model : keras.Model
        Its variables need not have values yet.
    origins : Origins
        The names of layers in the file.

    Raises
    ------
    FileError
        If a weight has no counterpart, one of another shape, or several possible ones.
    """
    fitting = Fitting(partial(FileError, path), flipped=archive.flipped)
    pairs = _by_path if archive.by_path else _by_name
    if archive.graph is not None:
        pairs = _by_graph
    found = fitting.all_of(pairs(archive, model, origins, fitting))
    missing = {id(v) for v in model.weights} - {id(each.variable) for each in found}
    if missing:
        names = ", ".join(v.path for v in model.weights if id(v) in missing)
        raise fitting.refuse(f"lacks the weights {names:.200}")
    return found


def take(
    path: Path, archive: Archive, model: keras.Model, *, by_name: bool, skip_mismatch: bool
) -> tuple[list[Match], LoadedWeights]:
    """Pair the weights that the file and the model have in common.

    Parameters
    ----------
    path : Path
        For messages.
    archive : Archive
    model : keras.Model
    by_name : bool
        Pair layers by name, instead of all layers.
    skip_mismatch : bool
        Leave out layers that do not fit, instead of refusing the file.

    Raises
    ------
    FileError
        If nothing can be taken, or if it is unclear what.
    """
    fitting = Fitting(partial(FileError, path), flipped=archive.flipped)
    taking = Taking(model, Origins(), fitting, skip_mismatch=skip_mismatch)
    if archive.by_path and by_name:
        raise fitting.refuse("has no names of layers; leave by_name out")
    if archive.by_path:
        taking.at_paths(contents.paths(archive))
    elif by_name:
        taking.named(contents.groups(archive))
    else:
        taking.in_place(contents.groups(archive))
    if not taking.matches:
        why = "; ".join(f"{name}: {reason}" for name, reason in taking.left.items())
        raise fitting.refuse(f"has no weights that this model takes ({why:.200})")
    return taking.matches, taking.said()


def _by_name(
    archive: Archive, model: keras.Model, origins: Origins, fitting: Fitting
) -> list[tuple[Stored, Slot]]:
    pairs = ByName(model, origins, fitting).pairs(contents.groups(archive))
    return [(array.stored, slot) for array, slot in pairs]


def _by_graph(
    archive: Archive, model: keras.Model, origins: Origins, fitting: Fitting
) -> list[tuple[Stored, Slot]]:
    assert archive.graph is not None
    assert archive.weights is not None
    return list(in_checkpoint(archive.graph, archive.weights, model, origins, fitting))


def _by_path(
    archive: Archive, model: keras.Model, origins: Origins, fitting: Fitting
) -> list[tuple[Stored, Slot]]:
    for layers in unsure(model, origins):
        shapes = [tuple(tuple(v.shape) for v in layer.weights) for layer in layers]
        edges = [{i for i, each in enumerate(shapes) if each == shape} for shape in shapes]
        if max(map(len, edges)) > 1:
            names = [layer.name for layer in layers]
            numbers = [f"number {i}" for i in range(len(names))]
            raise ambiguous(fitting.refuse, numbers, names, edges, ORDER)
    left = contents.paths(archive)
    found: list[tuple[Stored, Slot]] = []
    for path, slots in at_paths(model, origins):
        inside = contents.below(left, path)
        if len(inside) != len(slots):
            layer = slots[0].owner.name
            raise fitting.refuse(f"has {len(inside)} weights for {layer}, not {len(slots)}")
        found += zip(inside.values(), slots, strict=True)
        for each in inside:
            del left[each]
    ignored = of_metrics(model, origins)
    left = {each: left[each] for each in left if not each.startswith(ignored)}
    if left:
        raise fitting.refuse(f"has weights the model does not: {', '.join(sorted(left)):.200}")
    return found


def assign(matches: Iterable[Match], model: keras.Model) -> None:
    """Read the arrays, and assign them to the variables."""
    for each in matches:
        each.variable.assign(each.value())
    for layer in everything(model):
        if hasattr(layer, "finalize_state"):  # Normalization computes with values that it derives
            layer.finalize_state()


def local_layers(model: keras.Model) -> list[Any]:
    """All locally connected layers within a model, in order."""
    return [each for each in everything(model) if isinstance(each, LocallyConnected)]
