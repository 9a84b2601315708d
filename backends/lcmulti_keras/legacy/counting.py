"""Count what a configuration would build, before anything is built.

A few lines can ask for much work. A model that calls a model twice, which calls a model twice,
doubles the work with each level, and a layer with a thousand inputs costs a million steps. Counting
takes time linear in the text. What passes is built in the time of a normal model of this size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import keras

from lcmulti.errors import FileError

__all__ = ["count_compiling", "count_layers", "count_states"]

Config = dict[str, Any]

MOST_CALLS = 4_000
"""Largest number of layers, each counted as often as it is called, including nested models."""
MOST_LINKS = 20_000
MOST_INPUTS = 256
"""Largest number of inputs of a call, and of inputs and outputs of a model."""
MOST_NAME = 255
MOST_METRICS = 50
MOST_STATES = 16_000_000
"""Largest number of elements in the states that layers keep between batches; no file has them."""
MOST_CLASSES = 1_000
"""Largest number of classes of a metric, which may keep a square table of them."""

TWICE = ("Bidirectional",)
INNER = ("layer", "cell", "cells", "backward_layer")


def count_layers(path: Path, node: Any) -> None:
    """Raise for an architecture with too many calls, too many links, or too long names.

    Parameters
    ----------
    path : Path
        For messages.
    node : object
        The configuration of a model, parsed but not checked.

    Raises
    ------
    FileError
        If it is too large. The message has the limit.
    """
    links = 0
    for each in _nodes(node):
        config = _dict(each.get("config"))
        for name in (each.get("name"), config.get("name")):
            if isinstance(name, str) and len(name) > MOST_NAME:
                raise FileError(path, f"has a layer with a name of {len(name):,} characters")
        for ends in ("input_layers", "output_layers"):
            _require_few(path, _links(config.get(ends)), f"{ends[:-7]}s")
        for call in _list(each.get("inbound_nodes")):
            links += _require_few(path, _links(call), "inputs of one layer")
    if links > MOST_LINKS:
        raise FileError(path, f"has more than {MOST_LINKS:,} links between layers")
    if _calls(node) > MOST_CALLS:
        most = f"{MOST_CALLS:,} layers, each counted as often as it is called"
        raise FileError(path, f"has a model of more than {most}")


def count_compiling(config: Any) -> bool:
    """Whether compiling by *config* is cheap: few metrics, with few classes each."""
    config = _dict(config)
    pending = [config.get("metrics"), config.get("weighted_metrics")]
    metrics = 0
    while pending:
        value = pending.pop()
        named = {key: each for key, each in _dict(value).items() if key != "shared_object_id"}
        inner = list(named.values()) or _list(value)
        metrics += not isinstance(value, (dict, list)) or "class_name" in value
        pending += [each for each in inner if isinstance(each, (dict, list, str))]
        if any(type(each) in (int, float) and each > MOST_CLASSES for each in inner):
            return False
    return metrics <= MOST_METRICS


def count_states(path: Path, layers: Iterable[Any]) -> None:
    """Raise for layers that would keep an unreasonably large state."""
    sizes: list[int] = []

    def note(shape: tuple[int | None, ...]) -> None:
        sizes.append(prod(n or 1 for n in (shape[:1] + shape[2:] if sequence else shape)))

    for each in layers:
        sequence = getattr(each, "return_sequences", False)
        config = each.get_build_config() or {}
        shapes = config.get("shapes_dict") or {"": config.get("input_shape")}
        if shape := next(iter(shapes.values())):
            keras.tree.map_shape_structure(note, each.compute_output_shape(shape))
    count = sum(sizes)
    if count > MOST_STATES:
        raise FileError(path, f"would keep {count:,} numbers from one batch to the next")


def _dict(value: Any) -> Config:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _nodes(node: Any) -> Iterator[Config]:
    """Every layer and model of a configuration, at any depth."""
    pending = [node]
    while pending:
        each = _dict(pending.pop())
        yield each
        pending += _inner(each)


def _inner(node: Config) -> list[Any]:
    """Layers directly within a layer."""
    config = node.get("config")
    if isinstance(config, list):  # a sequential model of Keras before 2.2.3
        return config
    config = _dict(config)
    found = _list(config.get("layers"))[:]
    for key, value in config.items():
        if key in INNER:
            found += value if isinstance(value, list) else [value]
        elif not (key == "layers" and isinstance(value, list)):
            found += _models(value)
    return [each for each in found if isinstance(each, dict)]


def _models(value: Any) -> Iterator[Config]:
    """Models in a value that only a class of the caller's knows."""
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, dict) and "layers" in _dict(each.get("config")):
            yield each
        else:
            inner = each.values() if isinstance(each, dict) else _list(each)
            pending += [one for one in inner if isinstance(one, (dict, list))]


def _calls(node: Any) -> int:
    """Number of calls of layers in one call of a layer; parsing has limited the depth."""
    node = _dict(node)
    inner = sum(max(1, len(_list(each.get("inbound_nodes")))) * _calls(each)
                for each in _inner(node))  # fmt: skip
    return 1 + inner * (2 if node.get("class_name") in TWICE else 1)


def _links(value: Any) -> int:
    """References in the description of a call, or of a model's inputs and outputs, at any depth."""
    found, pending = 0, [value]
    while pending:
        each = pending.pop()
        inner = list(each.values()) if isinstance(each, dict) else _list(each)
        found += bool(inner) and isinstance(inner[0], str)
        pending += [one for one in inner if isinstance(one, (dict, list))]
    return found


def _require_few(path: Path, count: int, what: str) -> int:
    if count > MOST_INPUTS:
        raise FileError(path, f"has {count:,} {what}, more than {MOST_INPUTS}")
    return count
