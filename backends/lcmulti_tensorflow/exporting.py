"""Find out whether TensorFlow traces a graph for another process.

TensorFlow does not tell. But each exporter traces within a call of its own: Keras' export, the
LiteRT converter, tf2onnx, and `tf.saved_model.save`. People also give exporters the result of
``get_concrete_function``. Graphs are traced rarely, so the cost of looking at the callers does not
matter.
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

CONCRETE = ("tensorflow.python.eager.polymorphic_function.", "get_concrete_function")
STAYS_HERE = "tensorflow.python.data."
"""Pipelines of data take concrete functions, too, and run them in this process."""


def is_exporting() -> bool:
    """Whether a graph is being traced for one of `EXPORTERS`, or may be handed to one."""
    if tf.executing_eagerly():
        return False
    concrete = False
    frame = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith(EXPORTERS):
            return True
        if module.startswith(CONCRETE[0]) and frame.f_code.co_name == CONCRETE[1]:
            concrete = True
        elif module.startswith(STAYS_HERE):
            concrete = False
        frame = frame.f_back  # type: ignore[assignment]
    return concrete
