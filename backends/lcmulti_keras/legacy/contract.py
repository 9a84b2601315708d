"""What the parts that build a model ask of the one that builds its layers."""

from __future__ import annotations

from typing import Any, Protocol

import keras

from lcmulti.errors import FileError
from lcmulti_keras.legacy.initial import Initializers
from lcmulti_keras.legacy.origins import Origins

__all__ = ["Builds", "Config"]

Config = dict[str, Any]
"""A layer's, a model's or another object's arguments, as parsed from JSON."""


class Builds(Protocol):
    """Builds layers and other objects from Keras 2's configurations of them.

    Attributes
    ----------
    origins : Origins
        What the layers were, by ``id``.
    names : dict of str to str
        Keras 3's name of each layer by its old one, which may have held slashes.
    custom_objects : dict
        The caller's own classes and functions by name.
    lost : list of str
        What was not carried over.
    initializers : Initializers
        Those whose values the file replaces.
    """

    origins: Origins
    names: dict[str, str]
    custom_objects: Config
    lost: list[str]
    initializers: Initializers

    def refuse(self, reason: str) -> FileError:
        """The error that says why the file is refused."""

    def expect(self, more: int) -> None:
        """Refuse so many layers beyond those there are if there may not be as many."""

    def layer(self, node: Any) -> keras.layers.Layer:
        """The layer or model of ``{"class_name": ..., "config": ...}``."""

    def is_layer(self, name: Any) -> bool:
        """Whether a class of this name, Keras' or the caller's, is a layer."""

    def argument(self, key: str, value: Any) -> Any:
        """An argument of a layer as Keras 3 takes it."""

    def object(self, node: Any, kind: str) -> Any:
        """An initialiser, regulariser, loss or other small object; None for None."""

    def name(self, value: Any) -> str | None:
        """The name a layer has in Keras 3, which allows no slash."""

    def dtype(self, value: Any) -> str | None:
        """A dtype or the name of a policy, from either's configuration."""

    def plain(self, value: Any) -> Any:
        """A value that is data all through."""
