"""Keras' variables as the tensors that lcmulti takes."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

__all__ = ["tensor_of"]


def tensor_of(value: Any, dtype: Any = None) -> Any:
    """A variable's value, or a tensor, in a dtype (None: its own); None for None."""
    if value is None:
        return None
    if isinstance(value, keras.Variable):  # on TensorFlow one passes for a tensor and is none
        value = value.value
    return ops.cast(value, dtype or keras.backend.standardize_dtype(value.dtype))
