"""What the drivers share. Each checks one topic on the running backend of Keras, in one process."""

import json
import os
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

BACKEND = os.environ["KERAS_BACKEND"]
if BACKEND == "jax":
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count=2"
if BACKEND == "torch":
    import torch  # noqa: F401 - before TensorFlow, which Keras imports for its data sets
import keras
import numpy as np
from keras import ops

sys.path.append(str(Path(__file__).parents[2] / "helpers"))
warnings.filterwarnings("ignore", message="Do not pass an `input_shape`")
TRAINS = BACKEND != "numpy"
# Inductor takes a minute for a model; check_support.py has it compile one with all kinds of layers.
QUICKLY = dict(jit_compile=False) if BACKEND == "torch" else {}
RNG = np.random.default_rng(0)
X = RNG.standard_normal((8, 6, 5, 3)).astype("float32")
CHECKS = {}


def check(function):
    CHECKS[function.__name__] = function
    return function


def trained(function):
    """A check that trains, so it cannot run on the NumPy backend of Keras."""
    return check(function) if TRAINS else function


def numpy(x):
    return np.asarray(ops.convert_to_numpy(x))


def predict(model, x=X):
    return numpy(model.predict(x, verbose=0))


def raises(call, message):
    """Assert that a call is refused, with a message that contains this."""
    try:
        call()
    except (ValueError, TypeError) as error:
        assert message.lower() in str(error).lower(), error
    else:
        raise AssertionError(f"no error: {message}")


def exported(model, format):
    """Export a model that takes `X` and run what was written where nothing of lcmulti is needed."""
    expected = numpy(model(X))  # called, not predicted: on JAX Keras exports no other
    # Keras' PyTorch exporter fixes the batch.
    signature = [keras.InputSpec(shape=X.shape, dtype="float32")] if BACKEND == "torch" else None
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "model")) + SUFFIX[format]
        model.export(path, format=format, verbose=False, input_signature=signature)
        y = RUN[format](path)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


SUFFIX = {"tf_saved_model": "", "onnx": ".onnx", "litert": ".tflite"}


def _run_saved_model(path):
    import tensorflow as tf

    restored = tf.saved_model.load(path)  # it holds the variables, so it must live on
    return restored.serve(X).numpy()


def _run_onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    (y,) = session.run(None, {given.name: X})
    return y


def _run_litert(path):
    from helpers_exported import run_litert

    return run_litert(Path(path).read_bytes(), X)


RUN = {"tf_saved_model": _run_saved_model, "onnx": _run_onnx, "litert": _run_litert}


def main():
    """Run the checks and print JSON: null for each, or what went wrong."""
    found = {}
    for name, function in CHECKS.items():
        try:
            function()
            found[name] = None
        except Exception as error:
            found[name] = "".join(traceback.format_exception(error))[-3000:]
    print(json.dumps(found))
