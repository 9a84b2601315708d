"""Build layers without drawing values that those of a file are to replace.

Of a model of 138 million weights, drawing them took most of the time.
"""

from __future__ import annotations

from collections.abc import Iterable

import keras

from lcmulti_keras.legacy.origins import Layer

__all__ = ["Initializers"]


class Initializers:
    """Initialisers of layers that are not built yet, while zeros stand for them."""

    def __init__(self) -> None:
        self.aside: list[tuple[Layer, str, keras.initializers.Initializer]] = []

    def set_aside(self, layers: Iterable[Layer]) -> None:
        """Have *layers*, but for those of the caller's own classes, begin with zeros."""
        for layer in layers:
            if layer.built or not type(layer).__module__.startswith(("keras.", "lcmulti_keras.")):
                continue
            for name, value in list(vars(layer).items()):
                if isinstance(value, keras.initializers.Initializer):
                    self.aside.append((layer, name, value))
                    setattr(layer, name, keras.initializers.Zeros())

    def put_back(self) -> None:
        """Give the layers their own again, which their configurations tell."""
        for layer, name, value in self.aside:
            setattr(layer, name, value)
        self.aside.clear()
