"""Find the weights of each layer of a model in a TensorFlow checkpoint.

A checkpoint has the objects of the program that wrote it. Below a model made of layers there are
``layer_with_weights-0`` and so on; below another model, its attributes; below a layer, its
variables by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import keras

from lcmulti_keras.legacy import structure
from lcmulti_keras.legacy.checkpoint import Node, unused
from lcmulti_keras.legacy.fitting import Fitting
from lcmulti_keras.legacy.origins import Layer, Origins
from lcmulti_keras.legacy.stored import FileArray, Folder
from lcmulti_keras.legacy.structure import Slot

__all__ = ["in_checkpoint"]

OPTIMIZERS = ("optimizer", "save_counter")


def in_checkpoint(
    graph: Sequence[Node], arrays: Folder, model: keras.Model, origins: Origins, fitting: Fitting
) -> list[tuple[FileArray, Slot]]:
    """Pair every variable of a model with its array.

    Raises
    ------
    FileError
        If a variable has no array, or an array has no variable.
    """
    # `model.save_weights` puts the model at the root, a tf.train.Checkpoint as an attribute.
    starts = [0, *(n for name, n in graph[0].children.items() if not name.startswith(OPTIMIZERS))]
    tried = [(start, *_Search(graph, origins, model).pairs(start)) for start in starts]
    start, found, lacking = min(tried, key=lambda each: len(each[2]))
    if lacking:
        raise fitting.refuse(f"lacks the weights {', '.join(lacking):.200}")
    left = unused(list(graph), start, {key for key, _ in found})
    if left:
        raise fitting.refuse(f"has weights the model does not: {', '.join(left):.200}")
    pairs = []
    for key, slot in found:
        array = arrays.members.get(key)
        if not isinstance(array, FileArray):
            raise fitting.refuse(f"has no array of numbers for {slot.variable.path}")
        pairs.append((array, slot))
    return pairs


class _Search:
    """Goes through a model and the objects of a checkpoint in parallel."""

    def __init__(self, graph: Sequence[Node], origins: Origins, model: keras.Model) -> None:
        self.graph, self.origins, self.model = graph, origins, model
        self.own: dict[int, list[Slot]] = {}
        for slot in structure.slots(model, origins):
            self.own.setdefault(id(slot.owner), []).append(slot)

    def pairs(self, start: int) -> tuple[list[tuple[str, Slot]], list[str]]:
        """Keys with their variables, and the paths of variables without a key."""
        found = {
            id(slot.variable): (key, slot) for key, slot in self._walk(self.model, start, set())
        }
        every = [slot.variable for slots in self.own.values() for slot in slots]
        return list(found.values()), [v.path for v in every if id(v) not in found]

    def _walk(self, layer: Layer, node: int, seen: set[int]) -> Iterator[tuple[str, Slot]]:
        if id(layer) in seen or not 0 <= node < len(self.graph):
            return
        seen.add(id(layer))
        children = self.graph[node].children
        for slot in self.own.get(id(layer), ()):
            child = children.get(slot.variable.name)
            if child is not None and 0 <= child < len(self.graph):
                key = self.graph[child].key
                if key is not None:
                    yield key, slot
        for name, inner in self._inside(layer):
            child = children.get(name)
            if child is not None:
                yield from self._walk(inner, child, seen)
            elif name == "cell":  # an RNN of cuDNN has its own weights
                yield from self._walk(inner, node, seen)
        for name, items in self._lists(layer):
            within = children.get(name)
            if within is not None and 0 <= within < len(self.graph):
                numbered = self.graph[within].children
                for step, inner in items:
                    if step in numbered:
                        yield from self._walk(inner, numbered[step], seen)

    def _inside(self, layer: Layer) -> Iterator[tuple[str, Layer]]:
        if isinstance(layer, keras.Model) and structure.is_graph(layer):
            weighty = (e for e in structure.listed(layer, self.origins) if e.weights)
            for number, each in enumerate(weighty):
                yield f"layer_with_weights-{number}", each
        for name in structure.attributes(layer):
            value = getattr(layer, name, None)
            if isinstance(value, keras.layers.Layer):
                yield name, value

    def _lists(self, layer: Layer) -> Iterator[tuple[str, list[tuple[str, Layer]]]]:
        for name in structure.attributes(layer):
            value = getattr(layer, name, None)
            items: list[tuple[object, object]] = []
            if isinstance(value, (list, tuple)):
                items = list(enumerate(value))
            elif isinstance(value, dict):
                items = list(value.items())
            yield name, [(str(k), v) for k, v in items if isinstance(v, keras.layers.Layer)]
