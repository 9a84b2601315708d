"""What a file called the layers that were built from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras

__all__ = ["Origins"]


@dataclass
class Origins:
    """Of each layer, by ``id``; of layers that came from no file, what Keras 3 says.

    Parameters
    ----------
    class_names : dict of int to str
        The class Keras 2 knew a layer by.
    children : dict of int to list
        Layers of a model in the file's order, which is that of its weights.
    """

    class_names: dict[int, str] = field(default_factory=dict)
    children: dict[int, list[Any]] = field(default_factory=dict)

    def class_name(self, layer: Any) -> str:
        """The class Keras 2 knew a layer by."""
        return self.class_names.get(id(layer), type(layer).__name__)

    def layers(self, model: keras.Model) -> list[Any]:
        """Layers of a model in the order of the file."""
        return self.children.get(id(model), model.layers)
