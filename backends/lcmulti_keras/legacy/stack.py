"""Rebuild a sequential model, and its input, which may be an argument of its first layer."""

from __future__ import annotations

from typing import Any

import keras

from lcmulti_keras.legacy.contract import Builds, Config

__all__ = ["build_input", "build_stack", "short"]


def build_stack(
    builder: Builds, config: Any, cls: type[keras.Sequential] = keras.Sequential
) -> keras.Sequential:
    """Build a sequential model from a configuration of Keras 2."""
    if isinstance(config, list):  # before Keras 2.2.3 the configuration was only the layers
        config = {"layers": config}
    nodes = config.get("layers")
    if not isinstance(nodes, list):
        raise builder.refuse("has a Sequential without a list of layers")
    builder.expect(len(nodes))  # before anything is built, because building thousands takes long
    shape = _told_shape(builder, nodes[0]) if nodes else None
    told = shape is not None
    first = [keras.Input(batch_shape=shape, dtype=_told_dtype(builder, nodes[0]))] if told else []
    layers = [builder.layer(node) for node in nodes]
    builder.initializers.set_aside(layers)
    rest = [each for each in layers[1:] if not isinstance(each, keras.layers.InputLayer)]
    model = cls([*first, *layers[:1], *rest], name=builder.name(config.get("name")))
    builder.origins.children[id(model)] = layers
    if not model.built and config.get("build_input_shape"):
        model.build(tuple(builder.plain(config["build_input_shape"])))
    return model


def build_input(builder: Builds, config: Config) -> Any:
    """Build an input layer."""
    if config.get("ragged"):
        raise builder.refuse("has a ragged input, which Keras 3 has no counterpart of")
    shape = config.get("batch_input_shape", config.get("batch_shape"))
    return keras.layers.InputLayer(
        batch_shape=_batch_shape(builder, shape),
        dtype=builder.dtype(config.get("dtype") or "float32"),
        sparse=bool(config.get("sparse")),
        name=builder.name(config.get("name")),
    )


def short(value: Any) -> str:
    """A value for a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _told_shape(builder: Builds, node: Any) -> Any:
    """The input shape of a first layer, or of the first layer within it."""
    while isinstance(node, dict) and isinstance(node.get("config"), dict):
        if node.get("class_name") == "InputLayer" or "layers" in node["config"]:
            return None
        if "batch_input_shape" in node["config"]:
            return _batch_shape(builder, node["config"]["batch_input_shape"])
        node = node["config"].get("layer")
    return None


def _told_dtype(builder: Builds, node: Config) -> Any:
    if node.get("class_name") == "Embedding":
        return "int32"
    dtype = node["config"].get("dtype")
    policy = builder.dtype(dtype) if dtype is not None else None
    return keras.dtype_policies.get(policy).variable_dtype if policy else None


def _batch_shape(builder: Builds, shape: Any) -> tuple[int | None, ...]:
    shape = builder.plain(shape)
    if not isinstance(shape, list) or not all(n is None or type(n) is int for n in shape):
        raise builder.refuse(f"has an input of shape {short(shape)}")
    return tuple(shape)
