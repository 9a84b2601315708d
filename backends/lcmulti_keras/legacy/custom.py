"""Build layers of the caller's own classes, with the meaning that they have in the file.

A class of the caller replaces one of Keras 2. It gets the same arguments as Keras' own class, so
that ``padding="same"`` and ``hard_sigmoid`` are those of Keras 2. Arguments that only the class
knows are passed as they are in the file, except the layers and functions in them.
"""

from __future__ import annotations

from typing import Any

import keras

from lcmulti.errors import FileError
from lcmulti_keras.legacy.adjusting import adjust, droppable, parameters
from lcmulti_keras.legacy.contract import Builds, Config
from lcmulti_keras.legacy.functions import KERAS2
from lcmulti_keras.legacy.graph import build_graph
from lcmulti_keras.legacy.stack import build_stack

__all__ = ["custom_layer"]

ALWAYS = ("name", "dtype")
OBJECTS = ("activation", "initializer", "regularizer", "constraint")
LAYERS = ("layer", "backward_layer", "cell", "cells")


def custom_layer(builder: Builds, name: str, config: Any) -> Any:
    """Build a layer or model of a class in ``custom_objects``."""
    cls = builder.custom_objects[name]
    if not isinstance(cls, type) or not issubclass(cls, keras.layers.Layer):
        raise builder.refuse(f"has a layer {name}, and custom_objects has no layer's class for it")
    if not isinstance(config, dict):
        raise builder.refuse(f"has a {name} without a configuration")
    with keras.utils.custom_object_scope(builder.custom_objects):
        if issubclass(cls, keras.Sequential) and isinstance(config.get("layers"), list):
            return build_stack(builder, config, cls)
        if issubclass(cls, keras.Model) and "input_layers" in config:
            return build_graph(builder, config, cls)
        return _layer(builder, name, cls, dict(config))


def _layer(builder: Builds, name: str, cls: Any, config: Config) -> Any:
    config.pop("batch_input_shape", None)
    lost = adjust(name, cls, config)
    builder.lost += [lost] if lost else []
    taken = parameters(cls)
    arguments = {
        key: _argument(builder, key, value)
        for key, value in config.items()
        if key in taken or not droppable(key, value)
    }
    own = getattr(cls.from_config, "__func__", cls.from_config)
    if own.__module__.startswith("keras."):
        return cls(**arguments)
    return cls.from_config({key: _serialized(value) for key, value in arguments.items()})


def _argument(builder: Builds, key: str, value: Any) -> Any:
    """An argument of a class as it expects it, meaning what the file means by it."""
    if key in ALWAYS or (key in LAYERS and _is_layer(value)):
        return builder.argument(key, value)
    kind = key.rpartition("_")[2]
    if kind in OBJECTS:
        try:
            return builder.argument("activation" if kind == "activation" else f"_{kind}", value)
        except FileError:
            if not isinstance(value, str):  # the class itself may know a name
                raise
            return value
    return _meant(builder, value)


def _meant(builder: Builds, value: Any) -> Any:
    """A value that only the class knows, with the layers and functions in it those of Keras 2."""
    if isinstance(value, str):
        return KERAS2.get(value, value)
    if isinstance(value, list):
        return [_meant(builder, each) for each in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("config"), dict) and builder.is_layer(value.get("class_name")):
        return keras.saving.serialize_keras_object(builder.layer(value))
    return {key: _meant(builder, each) for key, each in value.items()}


def _is_layer(value: Any) -> bool:
    each = value[0] if isinstance(value, list) and value else value
    return isinstance(each, dict) and "class_name" in each


def _serialized(value: Any) -> Any:
    """An object in the form that ``from_config`` of a class expects."""
    if callable(value) or isinstance(value, keras.layers.Layer):
        return keras.saving.serialize_keras_object(value)
    return [_serialized(each) for each in value] if isinstance(value, list) else value
