"""Whether TensorFlow traces a graph for another process.

TensorFlow does not say so. But each exporter traces within a call of its own: Keras' export, the
LiteRT converter, tf2onnx, and `tf.saved_model.save` of a function that was not called before. A
graph is traced seldom, so a look at the callers costs nothing that counts.
"""

from __future__ import annotations

import sys

import tensorflow as tf

EXPORTERS = (
    "keras.src.export.",
    "tensorflow.lite.python.",
    "tensorflow.python.saved_model.",
    "tf2onnx.",
    "tf_keras.src.saving.legacy.saved_model.",
)
"""Packages that trace what they write to a file."""


def is_exporting() -> bool:
    """Whether one of `EXPORTERS` is among the callers of a graph that is being traced."""
    if tf.executing_eagerly():
        return False
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(EXPORTERS):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
