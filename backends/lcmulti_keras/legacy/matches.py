"""`Match`: an array in an old file, and the variable it belongs to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import keras
import numpy as np

__all__ = ["Convert", "Match", "Stored"]

Convert = Callable[[np.ndarray], np.ndarray]
"""Converts a stored array to the values of a variable."""


class Stored(Protocol):
    """An array that is read when it is needed: a `FileArray`, or an ``ndarray``."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def dtype(self) -> np.dtype: ...  # noqa: D102

    def __getitem__(self, key: tuple[()]) -> np.ndarray: ...


@dataclass(frozen=True)
class Match:
    """A variable, and its array in the file.

    Parameters
    ----------
    variable : keras.Variable
    stored : Stored
    convert : callable
    stored_as : str
        The layout of the stored array.
    """

    variable: keras.Variable
    stored: Stored
    convert: Convert
    stored_as: str

    def value(self) -> np.ndarray:
        """The values of the variable, read from the file."""
        array = np.asarray(self.stored[()])
        # PyTorch does not take arrays with the other byte order.
        return self.convert(array.astype(array.dtype.newbyteorder("="), copy=False))
