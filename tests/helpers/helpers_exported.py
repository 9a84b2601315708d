"""Run what TensorFlow has written, without the model it was written from."""

from __future__ import annotations

import tensorflow as tf


def run_litert(written: bytes, x):
    """The output of a LiteRT model for a batch, whatever batch the model was written for."""
    interpreter = tf.lite.Interpreter(model_content=written)
    (given,), (out,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(out["index"])
