"""Find each weight of a model in an old file, check its shape, and bring it to its layout.

Two ways to store weights: by name of the top-level layer (``.h5``), all weights within it in
one list, the trainable before the others; and by path of each layer (``.keras``,
``.weights.h5``), named after the class. Matching reads no array; only assigning does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import keras
import numpy as np

from lcmulti import layouts
from lcmulti.errors import FileError, UnsupportedError
from lcmulti.weights import require_memory
from lcmulti_keras.layers import LocallyConnected
from lcmulti_keras.legacy.origins import Origins
from lcmulti_keras.legacy.stored import Archive, Folder, Stored

__all__ = ["Match", "assign", "local_layers", "match", "walk"]

MOST_GROWTH = 16
"""Times a kernel may be larger than what implementation 3 stores of it: 4 an axis in 2D, where
a window of twice the input already is 2."""

FLIPPED = ("Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose")
RANDOM_STATE = "StateVar"


@dataclass(frozen=True)
class Match:
    """A variable, and where the file has it.

    Parameters
    ----------
    variable : keras.Variable
    dataset : Stored
    convert : callable
        From what is stored to what the variable holds.
    stored_as : str
        The layout it is stored in.
    """

    variable: Any
    dataset: Stored
    convert: Callable[[np.ndarray], np.ndarray]
    stored_as: str


def match(path: Path, archive: Archive, model: Any, origins: Origins) -> list[Match]:
    """Pair every weight of *model* with a dataset of the right shape.

    Parameters
    ----------
    path : Path
        For messages.
    archive : Archive
    model : keras.Model
        Its variables may be without values still.
    origins : Origins
        What the file called the layers.

    Raises
    ------
    FileError
        If one has no counterpart, or one of another shape.
    """
    by = _by_path if archive.by_path else _by_name
    local = {id(v): each for each in local_layers(model) for v in (each.kernel, each.bias)}
    flipped = _convolution_kernels(model) if archive.flipped else set()
    found = []
    for variable, dataset in by(path, archive, model, origins):
        checked = _checked(path, variable, dataset, local.get(id(variable)))
        if id(variable) in flipped:
            checked = replace(checked, convert=_flipped)
        found.append(checked)
    missing = {id(v) for v in model.weights} - {id(each.variable) for each in found}
    if missing:
        names = ", ".join(v.path for v in model.weights if id(v) in missing)
        raise FileError(path, f"lacks the weights {names:.200}")
    return found


def _convolution_kernels(model: Any) -> set[int]:
    """``id`` of the kernels that Keras 2 flips in a file from Theano; it flips no others."""
    found = set()
    for layer, _ in walk(model, Origins()):
        if isinstance(layer, keras.layers.ConvLSTM2D):
            found |= {id(layer.cell.kernel), id(layer.cell.recurrent_kernel)}
        elif type(layer).__name__ in FLIPPED:
            found.add(id(layer.kernel))
    return found


def _flipped(kernel: np.ndarray) -> np.ndarray:
    return np.flip(kernel, tuple(range(kernel.ndim - 2)))


def assign(matches: Iterable[Match], model: Any) -> None:
    """Read the arrays and give each variable its value."""
    for each in matches:
        each.variable.assign(each.convert(each.dataset.read()))
    for layer, _ in walk(model, Origins()):
        if hasattr(layer, "finalize_state"):  # Normalization works with what it derives
            layer.finalize_state()


def local_layers(model: Any) -> list[Any]:
    """All locally connected layers within a model, in order."""
    return [each for each, _ in walk(model, Origins()) if isinstance(each, LocallyConnected)]


def _checked(path: Path, variable: Any, dataset: Any, layer: Any) -> Match:
    if not isinstance(dataset, Stored) or dataset.dtype.kind not in "fiub":
        raise FileError(path, f"has no array of numbers for {variable.path}")
    shape = tuple(dataset.shape)
    if layer is None:
        _require_shape(path, variable, shape, tuple(variable.shape))
        return Match(variable, dataset, lambda array: array, "as it is")
    layout = f"keras2-{_implementation(path, variable, shape, layer)}"
    try:
        if variable is layer.bias:
            _require_shape(path, variable, shape, layouts.bias_shape(layout, layer.spec))
            return Match(
                variable, dataset, lambda a: layouts.import_bias(a, layout, layer.spec), "keras2"
            )
        _require_shape(path, variable, shape, layouts.kernel_shape(layout, layer.spec))
    except UnsupportedError as error:
        raise FileError(path, f"does not fit {layer.name}: {error}") from None
    if prod(layer.spec.kernel_shape) > MOST_GROWTH * max(1, prod(shape)):
        whole = layer.spec.kernel_shape
        raise FileError(path, f"stores {prod(shape):,} weights for a kernel of shape {whole}")
    require_memory(variable.path, layer.spec.kernel_shape, "float64")
    return Match(variable, dataset, lambda a: layouts.import_kernel(a, layout, layer.spec), layout)


def _implementation(path: Path, variable: Any, shape: tuple[int, ...], layer: Any) -> int:
    """Which implementation stored a kernel: no two have kernels of one rank."""
    ranks = {3: 1, 2 * layer.ndim + 2: 2, 1: 3}
    if variable is layer.bias:
        return 1  # they all store it alike
    if len(shape) not in ranks:
        raise FileError(path, f"has a kernel of shape {shape} for {layer.name}")
    return ranks[len(shape)]


def _require_shape(path: Path, variable: Any, shape: Any, expected: Any) -> None:
    if shape != expected:
        raise FileError(path, f"has shape {shape} for {variable.path}, not {expected}")


# By name ------------------------------------------------------------------------------------


def _by_name(
    path: Path, archive: Archive, model: Any, origins: Origins
) -> Iterator[tuple[Any, Any]]:
    groups = []
    for name in archive.strings(archive.weights, "layer_names"):
        group = archive.weights.get(name)
        if not isinstance(group, Folder):
            raise FileError(path, f"lists a layer {name!r:.80} and does not have it")
        weights = [
            each
            for each in archive.strings(group, "weight_names")
            if not _tail(each).startswith(RANDOM_STATE)
        ]
        if weights:
            groups.append((name, group, weights))
    layers = [layer for layer in origins.layers(model) if _ordered(layer)]
    by_name = {layer.name: layer for layer in layers}
    if by_name.keys() == {name for name, _, _ in groups}:
        layers = [by_name[name] for name, _, _ in groups]
    if len(groups) != len(layers):
        raise FileError(path, f"has {len(groups)} layers with weights, the model has {len(layers)}")
    for layer, (name, group, weights) in zip(layers, groups, strict=True):
        variables = _ordered(layer)
        if len(variables) != len(weights):
            raise FileError(
                path, f"has {len(weights)} weights for {name!r:.80}, not {len(variables)}"
            )
        for variable, weight in zip(variables, _aligned(variables, weights), strict=True):
            yield variable, group.get(weight)


def _ordered(layer: Any) -> list[Any]:
    return [*layer.trainable_weights, *layer.non_trainable_weights]


def _tail(name: str) -> str:
    """``"inner/lc/kernel:0"`` as ``"kernel"``."""
    return name.rpartition("/")[2].partition(":")[0]


def _aligned(variables: list[Any], names: list[str]) -> list[str]:
    """Stored names in the order of *variables*.

    Both list the trainable first. Should the rest be in another order, then weights of one
    kind are still in order among themselves, which their names tell.
    """
    tails = [_tail(name) for name in names]
    wanted = [variable.name for variable in variables]
    if tails == wanted or sorted(tails) != sorted(wanted):
        return names  # in order, or named by other rules; shapes are checked in any case
    queues = {tail: iter([n for n in names if _tail(n) == tail]) for tail in set(tails)}
    return [next(queues[name]) for name in wanted]


# By path ------------------------------------------------------------------------------------


def _by_path(
    path: Path, archive: Archive, model: Any, origins: Origins
) -> Iterator[tuple[Any, Any]]:
    layers = archive.weights.get("layers")
    names = (name for name, _ in layers.arrays("layers/")) if isinstance(layers, Folder) else ()
    left = {name for name in names if "random_generator" not in name}
    for layer, place in walk(model, origins):
        own = _own_weights(layer)
        if not own:
            continue
        path_of = "/".join((*place, "vars"))
        group = archive.weights.get(path_of)
        if not isinstance(group, Folder) or len(group) != len(own):
            count = len(group) if isinstance(group, Folder) else 0
            raise FileError(path, f"has {count} weights for {layer.name}, not {len(own)}")
        for i, variable in enumerate(own):
            left.discard(f"{path_of}/{i}")
            yield variable, group.get(str(i))
    if left:
        raise FileError(path, f"has weights the model does not: {', '.join(sorted(left)):.200}")


def _own_weights(layer: Any) -> list[Any]:
    inner = {id(v) for child, _ in _children(layer, Origins()) for v in child.weights}
    return [v for v in layer.weights if id(v) not in inner]


def walk(
    layer: Any,
    origins: Origins,
    place: tuple[str, ...] = (),
    seen: set[int] | None = None,
) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Each layer once with its path, in the order in which Keras saves them."""
    seen = set() if seen is None else seen
    if id(layer) in seen:
        return
    seen.add(id(layer))
    yield layer, place
    for child, step in _children(layer, origins, seen):
        yield from walk(child, origins, (*place, *step), seen)


def _children(
    layer: Any, origins: Origins, seen: Iterable[int] = ()
) -> list[tuple[Any, tuple[str, ...]]]:
    """Layers right within a layer, with the step that leads to each."""
    if isinstance(layer, keras.Model):
        return [
            (each, ("layers", name))
            for each, name in _numbered(origins.layers(layer), origins, seen)
        ]
    found: list[tuple[Any, tuple[str, ...]]] = []
    attributes = vars(layer) | vars(layer).get("_modules", {})  # where PyTorch keeps its own
    for attribute, value in sorted(attributes.items(), reverse=True):
        if attribute in ("_layers", "_metrics", "_inbound_nodes", "_outbound_nodes"):
            continue
        if isinstance(value, keras.layers.Layer):
            found.append((value, (attribute,)))
        elif isinstance(value, (list, tuple)):
            inner = [each for each in value if isinstance(each, keras.layers.Layer)]
            found += [(each, (attribute, n)) for each, n in _numbered(inner, origins, seen)]
    return found


def _numbered(
    layers: list[Any], origins: Origins, seen: Iterable[int]
) -> Iterator[tuple[Any, str]]:
    """Layers with the names their classes give them: ``dense``, ``dense_1``, ..."""
    counts: dict[str, int] = {}
    for layer in layers:
        if id(layer) in seen:
            continue
        name = _snake_case(origins.class_name(layer))
        counts[name] = counts.get(name, -1) + 1
        yield layer, f"{name}_{counts[name]}" if counts[name] else name


def _snake_case(name: str) -> str:
    """Keras' own rule: ``LocallyConnected2D`` as ``locally_connected2d``."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
