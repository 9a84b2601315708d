"""The interface of the builder of layers, for the modules that build models."""

from __future__ import annotations

from typing import Any, Protocol

import keras

from lcmulti.errors import FileError
from lcmulti_keras.legacy.initial import Initializers
from lcmulti_keras.legacy.origins import Origins

__all__ = ["Builds", "Config"]

Config = dict[str, Any]
"""Arguments of a layer, a model or another object, as parsed from JSON."""


class Builds(Protocol):
    """Builds layers and other objects from configurations of Keras 2.

    Attributes
    ----------
    origins : Origins
        What the layers were, by ``id``.
    names : dict of str to str
        The name of each layer in Keras 3, by its old name, which may contain slashes.
    custom_objects : dict
        The caller's own classes and functions by name.
    lost : list of str
        What could not be converted.
    initializers : Initializers
        Those whose values the file replaces.
    """

    origins: Origins
    names: dict[str, str]
    custom_objects: Config
    lost: list[str]
    initializers: Initializers

    def refuse(self, reason: str) -> FileError:
        """Make the error that says why the file is refused."""

    def expect(self, more: int) -> None:
        """Raise if *more* layers, in addition to those already built, are too many."""

    def layer(self, node: Any) -> keras.layers.Layer:
        """Build the layer or model of ``{"class_name": ..., "config": ...}``."""

    def is_layer(self, name: Any) -> bool:
        """Whether a class of this name, Keras' or the caller's, is a layer."""

    def argument(self, key: str, value: Any) -> Any:
        """Convert an argument of a layer to Keras 3."""

    def object(self, node: Any, kind: str) -> Any:
        """Build an initialiser, regulariser, loss or other small object; None for None."""

    def name(self, value: Any) -> str | None:
        """The name of a layer in Keras 3, which does not allow slashes."""

    def dtype(self, value: Any) -> str | None:
        """A dtype or the name of a policy, from the configuration of either."""

    def plain(self, value: Any) -> Any:
        """Check that a value is plain data at every depth."""
