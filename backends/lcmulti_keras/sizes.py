"""The input sizes of the layers of a Keras model, also where the model leaves its own open."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from lcmulti.errors import ArgumentError, described
from lcmulti.untying import arguments_of
from lcmulti_keras.cloning import is_graph, not_compiled, require_graph

__all__ = ["sizes_seen", "with_sizes"]


def with_sizes(model: Any, example: Any) -> Any:
    """The model, or a copy with the same layers whose inputs have a size, also in nested models.

    A nested model that is called on several sizes leaves its own open.

    Parameters
    ----------
    model : keras.Model
    example : array or structure of arrays, or None
        The sizes to take. None takes those of the model's inputs.

    Raises
    ------
    ArgumentError
        If *model* has no graph, or *example* is nothing that it takes.
    """
    require_graph(model)
    if example is None and not any(map(_is_open, _nested(model))):
        return model
    if example is None:
        example = _graph(model).input
    else:
        arguments_of(example)  # raises if it is nothing that a network takes
    stay: set[int] = set()
    while True:
        try:
            return _sized(model, example, stay)
        except _SeveralSizesError as error:
            stay.add(id(error.model))


class _SeveralSizesError(Exception):
    """A nested model is called on inputs of several sizes."""

    def __init__(self, model: Any) -> None:
        super().__init__(model.name)
        self.model = model


def _sized(model: Any, example: Any, stay: set[int]) -> Any:
    """A copy with the same layers; nested models whose id is in *stay* leave their sizes open."""
    known: dict[int, tuple[str, Any]] = {}

    def call(layer: Any, *arguments: Any, **named: Any) -> Any:
        return fitting(layer, arguments)(*arguments, **named)

    def fitting(layer: Any, arguments: Any) -> Any:
        if not is_graph(layer) or not arguments or id(layer) in stay:
            return layer
        if not any(map(_is_open, (layer, *_nested(layer)))):
            return layer
        sizes = str([each.shape for each in keras.tree.flatten(arguments[0])])
        if id(layer) not in known:
            known[id(layer)] = sizes, _sized(layer, arguments[0], stay)
        if known[id(layer)][0] != sizes:
            raise _SeveralSizesError(layer)
        return known[id(layer)][1]

    inputs = _inputs(model, example)
    if not isinstance(model, keras.Sequential):
        with not_compiled(model):
            kept = keras.models.clone_model(
                model, inputs, clone_function=lambda layer: layer, call_function=call
            )
        kept.name = model.name
        return kept
    kept, x = keras.Sequential([keras.Input(batch_shape=inputs.shape)], name=model.name), inputs
    for layer in model.layers:
        new = fitting(layer, (x,))
        kept.add(new)
        x = new(x)
    return kept


def _inputs(model: Any, example: Any) -> Any:
    """Inputs like those of the model, of the example's sizes."""

    def one(own: Any, given: Any) -> Any:
        shape = (None, *np.shape(given)[1:])
        name = own._keras_history.operation.name
        return keras.Input(batch_shape=shape, dtype=own.dtype, name=name)

    try:
        return keras.tree.map_structure(one, _graph(model).input, example)
    except (TypeError, ValueError) as error:
        what = "arrays in the structure of the model's inputs"
        shown = described(type(example).__name__)
        raise ArgumentError("example_input", what, shown) from error


def _graph(model: Any) -> Any:
    return model._functional if isinstance(model, keras.Sequential) else model


def _nested(model: Any) -> Iterator[Any]:
    """Models with a graph within a model, at any depth."""
    for layer in model.layers:
        if is_graph(layer):
            yield layer
            yield from _nested(layer)


def _is_open(model: Any) -> bool:
    return any(None in each.shape[1:] for each in keras.tree.flatten(_graph(model).input))


def sizes_seen(model: Any, found: dict[int, set[Any]]) -> dict[int, set[Any]]:
    """Shapes of the samples that each layer of this model is called with, by the layer's id."""
    graph = _graph(model)
    for node in (each for nodes in graph._nodes_by_depth.values() for each in nodes):
        if node.input_tensors:
            shape = tuple(node.input_tensors[0].shape[1:])
            found.setdefault(id(node.operation), set()).add(shape)
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            sizes_seen(layer, found)
    return found
