"""Convert Keras' variables to the tensors that lcmulti takes."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from lcmulti.types import Array

__all__ = ["tensor_of"]


def tensor_of(value: Any, dtype: Any = None) -> Array:
    """The value of a variable, or a tensor, in a dtype (None: its own); None stays None."""
    if value is None:
        return None
    # On TensorFlow a variable is accepted as a tensor without being one.
    if isinstance(value, keras.Variable):
        value = value.value
    return ops.cast(value, dtype or keras.backend.standardize_dtype(value.dtype))
