"""Functions of Keras 2 that have the same name in Keras 3, but other values."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

__all__ = ["KERAS2", "keras2_hard_sigmoid"]


@keras.saving.register_keras_serializable(package="lcmulti_keras")
def keras2_hard_sigmoid(x: Any) -> Any:
    """``clip(0.2 * x + 0.5, 0, 1)``; in Keras 3 it is ``clip(x / 6 + 0.5, 0, 1)``."""
    return ops.clip(0.2 * x + 0.5, 0.0, 1.0)


KERAS2 = {"hard_sigmoid": keras2_hard_sigmoid}
"""The functions by their name in Keras 2."""
