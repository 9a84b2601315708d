"""Rebuild a functional model: its layers, and then its calls in a possible order."""

from __future__ import annotations

from collections import deque
from typing import Any

import keras

from lcmulti_keras.legacy.contract import Builds

__all__ = ["build_graph"]

RECURRENT = (keras.layers.RNN, keras.layers.Bidirectional)

Reference = tuple[str, int, int]
"""Name of a layer, number of its call, and number of the output of this call."""


def build_graph(builder: Builds, config: Any, cls: type[keras.Model] = keras.Model) -> keras.Model:
    """Build a functional model from a configuration of Keras 2.

    Parameters
    ----------
    builder : Builder
        Builds the layers, and makes errors.
    config : dict
        ``layers`` with their ``inbound_nodes``, ``input_layers`` and ``output_layers``.
    cls : type, default keras.Model
        The class of the model.
    """
    nodes = config.get("layers") if isinstance(config, dict) else None
    if not isinstance(nodes, list) or not all(isinstance(each, dict) for each in nodes):
        raise builder.refuse("has a functional model without a list of layers")
    builder.expect(len(nodes))
    layers: dict[str, Any] = {}
    calls: dict[str, deque[Any]] = {}
    for node in nodes:
        name = node.get("name") or (node.get("config") or {}).get("name")
        if not isinstance(name, str) or name in layers:
            raise builder.refuse(f"has two layers, or none, of the name {name!r:.80}")
        layers[name] = builder.layer(node)
        calls[name] = deque(node.get("inbound_nodes") or ())
    builder.initializers.set_aside(layers.values())
    graph = _Graph(builder, layers)
    graph.make(calls, config.get("output_layers"))
    ends = (graph.structure(config.get(f"{each}_layers")) for each in ("input", "output"))
    # Keras 2 did not have lists of one element.
    inputs, outputs = (e[0] if isinstance(e, list) and len(e) == 1 else e for e in ends)
    model = cls(inputs, outputs, name=builder.name(config.get("name")))
    builder.origins.children[id(model)] = list(layers.values())
    if config.get("trainable") is False:
        model.trainable = False
    return model


class _Graph:
    """The tensors that exist so far, by call."""

    def __init__(self, builder: Builds, layers: dict[str, Any]) -> None:
        self.builder = builder
        self.layers = layers
        self.made: dict[str, list[Any]] = {name: [] for name in layers}
        for name, layer in layers.items():
            if isinstance(layer, keras.layers.InputLayer):
                self.made[name].append(layer.output)
        # Before TensorFlow 2.4, the construction of a model was its call 0, and its first call was
        # 1.
        self.first_call = dict.fromkeys(layers, 0)

    def make(self, calls: dict[str, deque[Any]], ends: Any) -> None:
        """Make all calls, each as soon as its inputs exist; *ends* are the outputs."""
        self._find_first_calls([ends, *calls.values()])
        blocked: dict[tuple[str, int], list[str]] = {}
        """Layers whose next call cannot be made yet, by the call that they wait for."""
        able = deque(calls)
        while able:
            name = able.popleft()
            waiting = calls[name]
            while waiting:
                lacking = (r for r in _references(waiting[0]) if not self._ready(r))
                if (first := next(lacking, None)) is not None:
                    blocked.setdefault(first[:2], []).append(name)
                    break
                self._call(name, waiting.popleft())
                made = self.first_call[name] + len(self.made[name]) - 1
                able += blocked.pop((name, made), ())
        stuck = ", ".join(name for name, waiting in calls.items() if waiting)
        if stuck:
            raise self.builder.refuse(f"has a graph that cannot be made at {stuck:.80}")

    def _find_first_calls(self, uses: list[Any]) -> None:
        used: dict[str, set[int]] = {}
        for name, call, _ in (each for use in uses for each in _references(use)):
            used.setdefault(name, set()).add(call)
        for name, numbers in used.items():
            if isinstance(self.layers.get(name), keras.Model) and 0 not in numbers:
                self.first_call[name] = min(numbers)

    def _ready(self, reference: Reference) -> bool:
        name, call, _ = reference
        if name not in self.layers:
            raise self.builder.refuse(f"has a graph that uses an unknown layer {name!r:.80}")
        return 0 <= call - self.first_call[name] < len(self.made[name])

    def tensor(self, reference: Reference) -> Any:
        """The tensor of a reference."""
        name, call, output = reference
        if not self._ready(reference):
            raise self.builder.refuse(f"has a graph that uses call {call} of {name!r:.80}")
        outputs = self.made[name][call - self.first_call[name]]
        flat = keras.tree.flatten(outputs)
        if not 0 <= output < len(flat):
            raise self.builder.refuse(f"has a graph that uses output {output} of {name!r:.80}")
        return flat[output]

    def structure(self, references: Any) -> Any:
        """Tensors in the structure of their references."""
        if (found := _reference(references)) is not None:
            return self.tensor(found)
        if isinstance(references, dict):
            return {key: self.structure(each) for key, each in references.items()}
        if not isinstance(references, list) or not references:
            raise self.builder.refuse("has a graph without inputs or outputs")
        return [self.structure(each) for each in references]

    def _call(self, name: str, node: Any) -> None:
        arguments, keywords = _arguments(node)
        positional = self._filled(arguments)
        if isinstance(positional, list) and len(positional) == 1:
            positional = positional[0]
        keywords = {key: self._filled(value) for key, value in keywords.items()}
        keywords = {k: v for k, v in keywords.items() if v is not None or k == "training"}
        layer = self.layers[name]
        if isinstance(layer, RECURRENT) and isinstance(positional, list):
            # Keras 2 wrote the initial state after the sequence; Keras 3 takes it by name.
            positional, *state = positional
            keywords["initial_state"] = state
        self.made[name].append(layer(positional, **keywords))

    def _filled(self, value: Any) -> Any:
        """Replace references by tensors; check that everything else is plain data."""
        if (found := _reference(value)) is not None:
            return self.tensor(found)
        if isinstance(value, list):
            return [self._filled(each) for each in value]
        if isinstance(value, dict) and not value.keys() & {"class_name", "module"}:
            return {key: self._filled(each) for key, each in value.items()}
        return self.builder.plain(value)


def _reference(value: Any) -> Reference | None:
    if (
        isinstance(value, list)
        and len(value) in (3, 4)
        and isinstance(value[0], str)
        and type(value[1]) is int
        and type(value[2]) is int
        and (len(value) == 3 or isinstance(value[3], dict))
    ):
        return value[0], value[1], value[2]
    return None


def _arguments(node: Any) -> tuple[Any, dict[str, Any]]:
    """First argument and keyword arguments of a call; each input may have keyword arguments."""
    keywords: dict[str, Any] = {}
    inputs = [node] if _reference(node) is not None else node
    for each in inputs if isinstance(inputs, list) else inputs.values():
        if isinstance(each, list) and len(each) == 4 and _reference(each) is not None:
            keywords |= each[3]
    return inputs, keywords


def _references(node: Any) -> list[Reference]:
    found = _reference(node)
    if found is not None:
        return [found, *(_references(node[3]) if len(node) == 4 else ())]
    inner = node.values() if isinstance(node, dict) else node
    inner = inner if isinstance(node, (dict, list, deque)) else ()
    return [each for value in inner for each in _references(value)]
