"""A model's layers and weights in the orders in which Keras 2 listed and saved them.

Keras 3 lists the layers of a subclassed model in the order of construction, Keras 2 in the order of
the attributes that hold them. In a ``.h5`` file, trainable weights come before the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import keras

from lcmulti_keras.legacy.origins import Layer, Origins

__all__ = [
    "Slot",
    "as_saved",
    "attributes",
    "everything",
    "is_chain",
    "is_graph",
    "is_order_sure",
    "listed",
    "slots",
]

OF_TENSORFLOW = "_self_"
"""How TensorFlow's own attributes begin, in which it lists the layers within a layer once more."""


@dataclass(frozen=True)
class Slot:
    """A variable, and its place in a model.

    Parameters
    ----------
    variable : keras.Variable
    chain : tuple of keras.layers.Layer
        The layers from one of the model to the nested one that owns the variable.
    trains : bool
        Whether it is trainable if nothing is frozen.
    """

    variable: keras.Variable
    chain: tuple[Layer, ...]
    trains: bool

    @property
    def owner(self) -> Layer:
        """The layer that owns the variable."""
        return self.chain[-1]


def listed(model: Layer, origins: Origins) -> list[Layer]:
    """Layers of a model in the order of Keras 2's ``model.layers``."""
    if id(model) in origins.children:
        return origins.children[id(model)]
    if not is_graph(model):
        return _by_attribute(model)
    found = {id(each): each for each in model.layers}
    # A subclass may have attributes with layers that it does not call.
    if not isinstance(model, keras.Sequential):
        found |= {id(each): each for each in model._layers if id(each) not in found}
    return list(found.values())


def is_graph(model: Layer) -> bool:
    """Whether a model consists of layers and calls, not of the attributes of a class."""
    return isinstance(model, keras.Sequential) or hasattr(model, "operations")


def _by_attribute(layer: Layer) -> list[Layer]:
    """Layers in the order in which attributes were first set; those of a list are together."""
    tracked = {id(each): each for each in layer._layers}
    found: dict[int, Layer] = {}
    for name in attributes(layer, properties=False):
        for each in _flat(getattr(layer, name, None)):
            if id(each) in tracked:
                found.setdefault(id(each), each)
    return list({**found, **tracked}.values())


def attributes(layer: Layer, *, properties: bool = True) -> dict[str, None]:
    """Names of the attributes that only this layer has, in the order in which they were set."""
    kind = keras.Model if isinstance(layer, keras.Model) else keras.layers.Layer
    found = [*vars(layer).get("_modules", ()), *vars(layer)]  # the first on PyTorch
    if properties:
        found += [
            name
            for cls in type(layer).__mro__
            if not cls.__module__.startswith(("keras.", "torch.", "tensorflow.", "flax."))
            for name, value in vars(cls).items()
            if isinstance(value, property)
        ]
    return dict.fromkeys(
        each for each in found if each not in _common(kind) and not each.startswith(OF_TENSORFLOW)
    )


@cache
def _common(kind: type[Layer]) -> frozenset[str]:
    return frozenset(dir(kind()))


def _flat(value: object) -> Iterator[Layer]:
    """Layers in nested containers; Keras 2 sorted those of a dict by their keys."""
    if isinstance(value, keras.layers.Layer):
        yield value
    elif isinstance(value, dict):
        for _, each in sorted(value.items(), key=lambda item: str(item[0])):
            yield from _flat(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _flat(each)


def is_order_sure(model: Layer, origins: Origins, among: Iterable[Layer] | None = None) -> bool:
    """Whether `listed` certainly has the layers (all, or those *among* them) in Keras 2's order.

    On PyTorch a layer has two tables of attributes, one for layers and one for everything else. So
    it is unknown whether a layer or a list of layers was set first. The place of an attribute that
    was set twice is also unknown; its first layer is still tracked.
    """
    if id(model) in origins.children or is_graph(model):
        return True
    wanted = {id(each) for each in (model._layers if among is None else among)}
    tables = (
        list(vars(model).get("_modules", {}).values()),
        [getattr(model, name, None) for name in attributes(model, properties=False)],
    )
    direct, reached = ({id(each) for value in table for each in _flat(value)} for table in tables)
    set_twice = {id(each) for each in model._layers} - reached
    return not set_twice and direct & wanted in (set(), reached & wanted)


def is_chain(model: Layer) -> bool:
    """Whether the order of the layers with weights is certain."""
    if isinstance(model, keras.Sequential):
        return True
    if not is_graph(model):
        return False
    levels: list[int] = []
    for depth, operations in model._operations_by_depth.items():
        levels += [depth] * sum(bool(getattr(each, "weights", ())) for each in operations)
    return len(set(levels)) == len(levels)


def slots(layer: Layer, origins: Origins) -> list[Slot]:
    """All variables in a layer, each once: its own, then its layers'; a model's own are last."""
    found: dict[int, Slot] = {}
    for each in _slots(layer, origins, (), set()):
        found.setdefault(id(each.variable), each)
    return list(found.values())


def _slots(
    layer: Layer, origins: Origins, above: tuple[Layer, ...], seen: set[int]
) -> Iterator[Slot]:
    if id(layer) in seen:
        return
    seen.add(id(layer))
    chain = (*above, layer)
    children = _parts(layer, origins)
    inner = {id(v) for each in children for v in each.weights}
    whole = {id(v) for v in layer.weights}
    own = [
        Slot(v, chain, trains)
        for variables, trains in (
            (layer._trainable_variables, True),
            (layer._non_trainable_variables, False),
        )
        for v in variables
        if id(v) in whole and id(v) not in inner
    ]
    is_model = isinstance(layer, keras.Model)
    yield from () if is_model else own
    for each in children:
        yield from _slots(each, origins, chain, seen)
    yield from own if is_model else ()


def _parts(layer: Layer, origins: Origins) -> list[Layer]:
    """Layers directly within a layer."""
    if isinstance(layer, keras.Model):
        return listed(layer, origins)
    if type(layer).__module__.startswith("keras."):
        return list(layer._layers)
    return _by_attribute(layer)


def everything(layer: Layer, seen: set[int] | None = None) -> Iterator[Layer]:
    """A layer and all layers within it, each once, in order."""
    seen = set() if seen is None else seen
    if id(layer) not in seen:
        seen.add(id(layer))
        yield layer
        for each in _parts(layer, Origins()):
            yield from everything(each, seen)


def as_saved(found: Iterable[Slot]) -> list[Slot]:
    """Slots in the order in which they would be saved now: trainable ones first."""
    found = list(found)
    trains = [each.trains and all(layer.trainable for layer in each.chain) for each in found]
    return [
        *(each for each, now in zip(found, trains, strict=True) if now),
        *(each for each, now in zip(found, trains, strict=True) if not now),
    ]
