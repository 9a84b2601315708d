"""Time a training step of the documentation's 2D model in lcmulti_keras beside tf_keras.

    python asv_benches/keras_step.py [--batch 32] [--steps 10]

It compares `fit` on the TensorFlow backend of Keras 3 with tf_keras' ``implementation=1``, in one
process with interleaved epochs. Times are medians; quote their ratio. It also prints how long each
model takes to build, which should not grow with the number of positions.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from statistics import median
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import lcmulti_keras
import numpy as np
import tf_keras

from lcmulti.bench.timing import timed


def model(api: Any, layer: Callable[..., Any], size: int = 32) -> Any:
    """Build and compile the model of Keras 2's documentation."""
    made = api.Sequential(
        [api.layers.InputLayer((size, size, 3)), layer(64, (3, 3)), layer(32, (3, 3))]
    )
    made.compile("sgd", "mse")
    return made


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10, help="in one epoch")
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    apis = {
        "lcmulti_keras": (keras, lcmulti_keras.LocallyConnected2D),
        "tf_keras 1": (tf_keras, tf_keras.layers.LocallyConnected2D),
    }
    rng = np.random.default_rng(0)
    count = arguments.batch * arguments.steps
    x = rng.standard_normal((count, 32, 32, 3), dtype="float32")
    y = rng.standard_normal((count, 28, 28, 32), dtype="float32")
    models, times = {}, {name: [] for name in apis}
    for name, (api, layer) in apis.items():
        # A small model first, because the first build also loads what is loaded only once.
        model(api, layer, 8)
        seconds = timed(
            lambda name=name, api=api, layer=layer: models.update({name: model(api, layer)})
        )
        print(f"{name:<14} build {seconds:7.3f} s", flush=True)
        seconds = timed(lambda m=models[name]: m.fit(x, y, batch_size=arguments.batch, verbose=0))
        print(f"{name:<14} first epoch {seconds:.3f} s, tracing included", flush=True)
    for _ in range(arguments.epochs):
        for name, made in models.items():
            seconds = timed(lambda m=made: m.fit(x, y, batch_size=arguments.batch, verbose=0))
            times[name].append(seconds / arguments.steps)
    ours, theirs = (median(times[name]) for name in apis)
    for name, each in times.items():
        print(f"{name:<14} step {median(each) * 1e3:8.1f} ms, batch {arguments.batch}")
    print(f"ratio {theirs / ours:.1f}")
    # Few weights at each position, because drawing random numbers is not what is timed.
    for size in (16, 64, 256):
        layer = lcmulti_keras.LocallyConnected2D(1, 3)
        spent = timed(lambda layer=layer, size=size: layer.build((None, size, size, 1)))
        print(
            f"{(size - 2) ** 2:>7,} positions: build {spent:.3f} s, {len(layer.weights)} variables"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
