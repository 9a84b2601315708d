"""What a file called the layers that were built from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from keras.layers import Layer

__all__ = ["Layer", "Origins"]


@dataclass
class Origins:
    """Of each layer, by ``id``; of layers that came from no file, what Keras 3 says.

    Parameters
    ----------
    class_names : dict of int to str
        The class Keras 2 knew a layer by.
    names : dict of int to str
        The name Keras 2 knew a layer by, which may have held slashes.
    children : dict of int to list
        Layers of a model in the file's order, which is that of its weights.
    apart : bool
        Whether the weights are in another file, which may be of another day: what was frozen
        then is not known.
    """

    class_names: dict[int, str] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    children: dict[int, list[Layer]] = field(default_factory=dict)
    apart: bool = False

    @property
    def known(self) -> bool:
        """Whether the layers came from the file whose weights they are to take."""
        return bool(self.class_names) and not self.apart

    def class_name(self, layer: Layer) -> str:
        """The class Keras 2 knew a layer by."""
        return self.class_names.get(id(layer), type(layer).__name__)

    def name(self, layer: Layer) -> str:
        """The name Keras 2 knew a layer by."""
        return self.names.get(id(layer)) or str(layer.name)
