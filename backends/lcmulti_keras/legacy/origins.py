"""The names and classes that a file has for the layers built from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from keras.layers import Layer

__all__ = ["Layer", "Origins"]


@dataclass
class Origins:
    """Names and classes by ``id`` of a layer; for layers not built from a file, those of Keras 3.

    Parameters
    ----------
    class_names : dict of int to str
        The class of a layer in Keras 2.
    names : dict of int to str
        The name of a layer in Keras 2, which may contain slashes.
    children : dict of int to list
        Layers of a model in the order of the file, which is the order of its weights.
    apart : bool
        Whether the weights are in another file. It may have been saved at another time, so it is
        unknown what was frozen then.
    """

    class_names: dict[int, str] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    children: dict[int, list[Layer]] = field(default_factory=dict)
    apart: bool = False

    @property
    def known(self) -> bool:
        """Whether the layers were built from the file that has the weights."""
        return bool(self.class_names) and not self.apart

    def class_name(self, layer: Layer) -> str:
        """The class of a layer in Keras 2."""
        return self.class_names.get(id(layer), type(layer).__name__)

    def name(self, layer: Layer) -> str:
        """The name of a layer in Keras 2."""
        return self.names.get(id(layer)) or str(layer.name)
