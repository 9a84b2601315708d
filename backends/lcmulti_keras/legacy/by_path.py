"""Where ``.keras`` and ``.weights.h5`` files have the weights of each layer of a model.

Both hold a layer's variables at the path of attributes that leads to it, ``encoder/lc/vars/0``.
Attributes are walked from z to a, each layer is stored where it is met first, and layers in a
list are named after their classes. All layers of a model are in a list, ``layers``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import keras

from lcmulti_keras.legacy import structure
from lcmulti_keras.legacy.names import snake_case
from lcmulti_keras.legacy.origins import Layer, Origins
from lcmulti_keras.legacy.recurrent import CUDNN
from lcmulti_keras.legacy.structure import Slot

__all__ = ["at_paths", "of_metrics", "unsure", "walk"]

Place = tuple[str, ...]


def at_paths(model: keras.Model, origins: Origins) -> list[tuple[str, list[Slot]]]:
    """For each layer with variables of its own, where they are stored, in their order."""
    own: dict[int, list[Slot]] = {}
    for slot in structure.slots(model, origins):
        own.setdefault(id(slot.owner), []).append(slot)
    return [
        ("/".join((*place, "vars")), own[id(layer)])
        for layer, place in walk(model, origins)
        if id(layer) in own
    ]


def walk(
    layer: Layer, origins: Origins, place: Place = (), seen: set[int] | None = None
) -> Iterator[tuple[Layer, Place]]:
    """Each layer once with its path, in the order in which Keras 2 saves them."""
    seen = set() if seen is None else seen
    if id(layer) in seen:
        return
    seen.add(id(layer))
    yield layer, place
    for child, step in _children(layer, origins, seen):
        # The cell of an RNN that cuDNN ran is no layer of its own in Keras 2.
        within = place if origins.class_name(layer) in CUDNN else (*place, *step)
        yield from walk(child, origins, within, seen)


def unsure(model: keras.Model, origins: Origins) -> list[list[Layer]]:
    """Layers of one class in a list whose order in Keras 2, and so whose numbers, are not sure."""
    lists: dict[tuple[Place, str], list[Layer]] = {}
    models: dict[Place, Layer] = {}
    for layer, place in walk(model, origins):
        models[place] = layer
        if place[-2:-1] == ("layers",) and layer.weights:
            stem = snake_case(origins.class_name(layer))
            lists.setdefault((place[:-2], stem), []).append(layer)
    return [
        found
        for (place, _), found in lists.items()
        if len(found) > 1 and not structure.is_order_sure(models[place], origins, found)
    ]


def of_metrics(model: keras.Model, origins: Origins) -> tuple[str, ...]:
    """Where the metrics are that layers have as attributes."""
    return tuple(
        "/".join((*place, name, ""))
        for layer, place in walk(model, origins)
        for name, value in vars(layer).items()
        if isinstance(value, keras.metrics.Metric)
    )


def _children(layer: Layer, origins: Origins, seen: set[int]) -> Iterator[tuple[Layer, Place]]:
    """Layers right within a layer, with the step that leads to each."""
    for name in sorted(_attributes(layer), reverse=True):
        if name == "layers" and isinstance(layer, keras.Model):
            value: object = structure.listed(layer, origins)
        else:
            value = getattr(layer, name, None)
        if isinstance(value, keras.layers.Layer):
            yield value, (name,)
        elif isinstance(value, (list, tuple, dict, set)):
            inner = value.values() if isinstance(value, dict) else value
            for each, step in _numbered(inner, origins, seen):
                yield each, (name, step)


def _attributes(layer: Layer) -> set[str]:
    """Attributes that Keras 2 looks at: those that not every layer has, and a model's layers."""
    if not isinstance(layer, keras.Model):
        return set(structure.attributes(layer))
    found = set(structure.attributes(layer))
    if structure.is_graph(layer):  # whose private ones are of Keras 3
        found = {name for name in found if not name.startswith("_")}
    return found | {"layers"}


def _numbered(
    layers: Iterable[object], origins: Origins, seen: set[int]
) -> Iterator[tuple[Layer, str]]:
    """Layers not seen yet, with the names their classes give them: ``dense``, ``dense_1``, ..."""
    counts: dict[str, int] = {}
    for layer in layers:
        if not isinstance(layer, keras.layers.Layer) or id(layer) in seen:
            continue
        name = snake_case(origins.class_name(layer))
        counts[name] = counts.get(name, -1) + 1
        yield layer, f"{name}_{counts[name]}" if counts[name] else name
