"""An array in an old file, and the variable it is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import keras
import numpy as np

__all__ = ["Convert", "Match", "Stored"]

Convert = Callable[[np.ndarray], np.ndarray]
"""From what is stored to what a variable holds."""


class Stored(Protocol):
    """An array that is read when it is asked for: a `FileArray`, or an ``ndarray``."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def dtype(self) -> np.dtype: ...  # noqa: D102

    def __getitem__(self, key: tuple[()]) -> np.ndarray: ...


@dataclass(frozen=True)
class Match:
    """A variable, and where the file has it.

    Parameters
    ----------
    variable : keras.Variable
    stored : Stored
    convert : callable
    stored_as : str
        The layout it is stored in.
    """

    variable: keras.Variable
    stored: Stored
    convert: Convert
    stored_as: str

    def value(self) -> np.ndarray:
        """What the variable is to hold, read from the file."""
        array = np.asarray(self.stored[()])
        # PyTorch takes no array of the other order of bytes.
        return self.convert(array.astype(array.dtype.newbyteorder("="), copy=False))
