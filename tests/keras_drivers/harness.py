"""What the drivers share: each checks things on the running backend of Keras in one process."""

import json
import os
import traceback
import warnings

BACKEND = os.environ["KERAS_BACKEND"]
if BACKEND == "jax":
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
if BACKEND == "torch":
    import torch  # noqa: F401 - before TensorFlow, which Keras imports for its data sets
import numpy as np
from keras import ops

warnings.filterwarnings("ignore", message="Do not pass an `input_shape`")
TRAINS = BACKEND != "numpy"
RNG = np.random.default_rng(0)
X = RNG.standard_normal((8, 6, 5, 3)).astype("float32")
CHECKS = {}


def check(function):
    CHECKS[function.__name__] = function
    return function


def trained(function):
    """A check that trains, which the NumPy backend of Keras cannot."""
    return check(function) if TRAINS else function


def numpy(x):
    return np.asarray(ops.convert_to_numpy(x))


def predict(model, x=X):
    return numpy(model.predict(x, verbose=0))


def raises(call, message):
    """The call is refused with this in its message."""
    try:
        call()
    except (ValueError, TypeError) as error:
        assert message.lower() in str(error).lower(), error
    else:
        raise AssertionError(f"no error: {message}")


def main():
    """Print JSON: for each check null, or what went wrong."""
    found = {}
    for name, function in CHECKS.items():
        try:
            function()
            found[name] = None
        except Exception as error:
            found[name] = "".join(traceback.format_exception(error))[-3000:]
    print(json.dumps(found))
