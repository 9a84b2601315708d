"""Build Keras 3 objects from configurations of Keras 2, with classes of the allow-list only.

Keras' own deserialiser is not used, because it imports modules that a configuration names. Each
class is looked up in `lcmulti_keras.legacy.allowed` and called with the arguments that Keras 3
still has.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras

from lcmulti.errors import FileError
from lcmulti_keras.legacy import allowed, functions
from lcmulti_keras.legacy.adjusting import adjust, class_of, droppable, parameters
from lcmulti_keras.legacy.contract import Config
from lcmulti_keras.legacy.custom import custom_layer
from lcmulti_keras.legacy.graph import build_graph
from lcmulti_keras.legacy.initial import Initializers
from lcmulti_keras.legacy.origins import Origins
from lcmulti_keras.legacy.stack import build_input, build_stack, short

__all__ = ["Builder"]

TRUSTED_MODULE = re.compile(r"(tf_|tensorflow\.(python\.)?)?keras(\.\w+)*")
PLAIN = (str, int, float, bool, type(None))
MOST_LAYERS = 4_000
LAYER_KEYS = ("layer", "backward_layer", "cell", "cells")
POLICIES = ("Policy", "PolicyV1", "DTypePolicy")


class Builder:
    """Builds the layers of one model.

    Parameters
    ----------
    path : Path
        Path of the file, for messages.
    custom_objects : dict
        The caller's own classes and functions by name. These are trusted.
    with_values : bool
        Whether variables get values.
    origins : Origins
        Where to note what the layers were, by ``id``.

    Attributes
    ----------
    names : dict of str to str
        The name of each layer in Keras 3, by its old name, which may contain slashes.
    lost : list of str
        What could not be converted.
    stateful : list of Layer
        Layers that keep a state of the size of a batch.
    initializers : Initializers
        Those whose values the file replaces.
    """

    def __init__(
        self, path: Path, custom_objects: Config, with_values: bool, origins: Origins
    ) -> None:
        self.path = path
        self.custom_objects = custom_objects
        self.with_values = with_values
        self.origins = origins
        self.names: dict[str, str] = {}
        self.lost: list[str] = []
        self.stateful: list[Any] = []
        self.initializers = Initializers()
        self.layers: list[Any] = []  # keeps them alive, so that an id belongs to one layer

    def refuse(self, reason: str) -> FileError:
        """Make the error that says why the file is refused."""
        return FileError(self.path, reason)

    def layer(self, node: Any) -> Any:
        """Build the layer or model of ``{"class_name": ..., "config": ...}``."""
        name, config = self._class_and_config(node, "layers")
        if name in self.custom_objects:
            made = custom_layer(self, name, config)
        elif name == "Sequential":
            made = build_stack(self, config)
        elif name in allowed.MODELS:
            made = build_graph(self, config)
        elif name == "InputLayer":
            made = build_input(self, config)
        else:
            made = self._plain_layer(name, config)
        self.origins.class_names[id(made)] = name.rpartition(">")[2]
        if isinstance(config, dict) and isinstance(config.get("name"), str):
            self.origins.names[id(made)] = config["name"]
        self.layers.append(made)
        self.expect(0)
        return made

    def is_layer(self, name: Any) -> bool:
        """Whether a class of this name, Keras' or the caller's, is a layer."""
        if not isinstance(name, str):
            return False
        own = self.custom_objects.get(name, self.custom_objects.get(name.rpartition(">")[2]))
        if own is not None:
            return isinstance(own, type) and issubclass(own, keras.layers.Layer)
        return name in allowed.LAYERS

    def expect(self, more: int) -> None:
        """Raise if *more* layers, in addition to those already built, are too many."""
        if len(self.layers) + more > MOST_LAYERS:
            raise self.refuse(f"has more than {MOST_LAYERS:,} layers")

    def build_activations(self) -> None:
        """Build activations that are layers, which Keras 3 would do at the first call."""
        for layer in self.layers:
            activation = getattr(layer, "activation", None)
            if not isinstance(activation, keras.layers.Layer) or activation.built:
                continue
            shape = (layer.get_build_config() or {}).get("input_shape")
            if shape is not None:
                activation.build(layer.compute_output_shape(shape))

    def _class_and_config(self, node: Any, kind: str) -> tuple[str, Any]:
        """Check that a node names a class of this kind, and no module other than those of Keras."""
        if not isinstance(node, dict) or not isinstance(node.get("class_name"), str):
            raise self.refuse(f"has {short(node)} where one of Keras' {kind} should be")
        bare = node["class_name"].rpartition(">")[2]
        for own in (bare, node["class_name"], node.get("registered_name")):
            if isinstance(own, str) and own in self.custom_objects:
                return own, node.get("config", {})
        name = bare
        if kind != "optimizers" or not node["class_name"].startswith("Custom>"):
            name = node["class_name"]  # tf_keras registers its optimizers, but nothing else
        if name in ("Lambda", "TFOpLambda", "SlicingOpLambda"):
            raise self.refuse(
                f"has a {name} layer, which runs code from the file or calls TensorFlow by name; "
                "rebuild that layer and use load_legacy_weights"
            )
        name = allowed.SHORT_NAMES.get(name, name)
        module = node.get("module")
        own = module is None or (isinstance(module, str) and TRUSTED_MODULE.fullmatch(module))
        registered = node.get("registered_name")
        if not own or registered not in (None, node["class_name"]):
            raise self.refuse(f"names {short(registered)} of module {short(module)}")
        if name not in allowed.KINDS[kind]:
            raise self.refuse(
                f"names {short(name)}, which is none of the {kind} that can be loaded; "
                "with classes of your own, load it in Python: "
                "lcmulti_keras.load_legacy_model(path, custom_objects={'Name': Class}); "
                "what it returns has .save('new.keras')"
            )
        return name, node.get("config", {})

    def _custom(self, name: str, config: Any) -> Any:
        cls = self.custom_objects[name]
        config = {k: v for k, v in config.items() if k != "batch_input_shape"}
        if "dtype" in config:
            config["dtype"] = self.dtype(config["dtype"])
        with keras.utils.custom_object_scope(self.custom_objects):
            return cls.from_config(config)

    def _plain_layer(self, name: str, config: Config) -> Any:
        config = dict(config)
        config.pop("batch_input_shape", None)
        cls: Any = class_of(name)
        lost = adjust(name, cls, config)
        self.lost += [lost] if lost else []
        arguments = {}
        for key, value in config.items():
            if key in parameters(cls):
                arguments[key] = self.argument(key, value)
            elif not droppable(key, value):
                raise self.refuse(
                    f"has a {name} with {key}={short(value)}, which Keras 3 has no counterpart of"
                )
        made = cls(**arguments)
        self.stateful += [made] if config.get("stateful") else []
        return made

    def argument(self, key: str, value: Any) -> Any:
        """Convert an argument of a layer to Keras 3."""
        known = {
            "name": self.name, "dtype": self.dtype, "activation": self.activation,
            "recurrent_activation": self.activation,
        }  # fmt: skip
        if key in known:
            return known[key](value)
        if key in ("stateful", "unroll"):
            # States are values that layers start with. Without unrolling, the values are the
            # same, and the graph is not as long as the sequence.
            return bool(value) and key == "stateful" and self.with_values
        for kind in ("initializer", "regularizer", "constraint"):
            if key.endswith(f"_{kind}"):
                if isinstance(value, dict) and value.get("class_name") == "RadialConstraint":
                    self.lost.append(f"the {key.replace('_', ' ')} RadialConstraint")
                    return None
                return self.object(value, f"{kind}s")
        if key in LAYER_KEYS and value is not None:
            many = isinstance(value, list)
            return [self.layer(each) for each in value] if many else self.layer(value)
        return self.plain(value)

    def object(self, node: Any, kind: str) -> Any:
        """Build an initialiser, regulariser, loss or other small object; None for None."""
        if node is None:
            return None
        if isinstance(node, str):
            if node in self.custom_objects:
                return self.custom_objects[node]
            node = {"class_name": node, "config": {}}
        name, config = self._class_and_config(node, kind)
        if name in self.custom_objects:
            return self._custom(name, config)
        module: Any = keras
        for part in kind.split("."):
            module = getattr(module, part)
        cls = getattr(module, name, None)
        if cls is None:
            raise self.refuse(f"names {name!r}, which this Keras does not have")
        arguments = {
            key: self._nested(key, value)
            for key, value in (config or {}).items()
            if key in parameters(cls)
        }
        if name == "L1L2":
            arguments = {key: float(value or 0) for key, value in arguments.items()}
        # Old initialisers have the dtype of their weight, which the layer also knows.
        if kind == "initializers":
            arguments.pop("dtype", None)
        return cls(**arguments)

    def _nested(self, key: str, value: Any) -> Any:
        if key == "learning_rate" and isinstance(value, dict):
            return self.object(value, "optimizers.schedules")
        if key == "inner_optimizer":
            return self.object(value, "optimizers")
        return self.plain(value)

    def activation(self, value: Any) -> Any:
        """Build an activation: a function of Keras by name, or a layer that is used as one."""
        if value is None:
            return None
        if isinstance(value, dict) and value.get("class_name") == "function":
            if value.get("module") not in (None, "builtins", "keras.activations"):
                raise self.refuse(f"names a function of module {short(value.get('module'))}")
            value = value.get("config")
        if isinstance(value, dict):
            return self.layer(value)
        if isinstance(value, str):
            own = value.rpartition(">")[2]
            if own in self.custom_objects:
                return self.custom_objects[own]
            value = {"softmax_v2": "softmax"}.get(value, value)
            if value in functions.KERAS2:
                return functions.KERAS2[value]
            if value in allowed.ACTIVATIONS:
                return getattr(keras.activations, value)
        raise self.refuse(f"names the activation {short(value)}, which is none of Keras'")

    def dtype(self, value: Any) -> str | None:
        """A dtype or the name of a policy, from the configuration of either."""
        if isinstance(value, dict):
            config = value.get("config")
            if value.get("class_name") not in POLICIES or not isinstance(config, dict):
                raise self.refuse(f"has the dtype {short(value)}")
            value = config.get("name")
        if value in (None, "_infer"):
            return None
        known = ("float16", "bfloat16", "float32", "float64", "mixed_float16", "mixed_bfloat16")
        integers = ("bool", "uint8", "uint16", "uint32", "int8", "int16", "int32", "int64")
        if value not in known + integers:
            raise self.refuse(f"has the dtype {short(value)}")
        return str(value)

    def name(self, value: Any) -> str | None:
        """The name of a layer in Keras 3, which does not allow slashes."""
        if value is None:
            return None
        if not isinstance(value, str) or not value.isprintable() or "\\" in value:
            raise self.refuse(f"has a layer named {short(value)}")
        if any(part in ("", ".", "..") for part in value.split("/")):
            raise self.refuse(f"has a layer named {short(value)}, which looks like a path")
        if value not in self.names:
            new = value.replace("/", "_")
            while new in self.names.values():
                new += "_"
            self.names[value] = new
        return self.names[value]

    def plain(self, value: Any) -> Any:
        """Check that a value is plain data at every depth; tuples and shapes become lists."""
        if isinstance(value, PLAIN):
            return value
        if isinstance(value, (list, tuple)):
            return type(value)(map(self.plain, value))
        if isinstance(value, dict) and value.get("class_name") in ("__tuple__", "TensorShape"):
            return self.plain(value.get("items"))
        if isinstance(value, dict) and not value.keys() & {"class_name", "module"}:
            return {key: self.plain(each) for key, each in value.items()}
        raise self.refuse(f"has {short(value)} where a plain value should be")
