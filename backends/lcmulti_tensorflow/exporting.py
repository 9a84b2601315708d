"""Find out whether TensorFlow traces a graph for another process.

TensorFlow does not tell. But each exporter traces within a call of its own: Keras' export, the
LiteRT converter, tf2onnx, and `tf.saved_model.save` of a function that was not called before.
Graphs are traced rarely, so the cost of looking at the callers does not matter.
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
"""Packages that trace functions to write them to a file."""


def is_exporting() -> bool:
    """Whether one of `EXPORTERS` is among the callers, while a graph is traced."""
    if tf.executing_eagerly():
        return False
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(EXPORTERS):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
