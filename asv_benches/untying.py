"""Measure `untie` of MobileNetV2, 96 x 96: ``KERAS_BACKEND=torch python asv_benches/untying.py``.

It prints the seconds, the growth of the process, the bytes of the new weights, and the largest
difference of the outputs beside their size. Another model is untied before, because Keras imports
TensorFlow when it first writes down a layer's arguments.
"""

from __future__ import annotations

import resource
from time import perf_counter

import keras
import lcmulti_keras
import numpy as np


def grown() -> float:
    """Return the peak memory of this process until now, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    warm = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3)])
    lcmulti_keras.untie(warm, tell=None)
    model = keras.applications.MobileNetV2((96, 96, 3), weights=None, include_top=False)
    x = np.random.default_rng(0).standard_normal((2, 96, 96, 3)).astype("float32")
    expected = model.predict(x, verbose=0)
    before, start = grown(), perf_counter()
    untied = lcmulti_keras.untie(model, tell=None)
    seconds, more = perf_counter() - start, grown() - before
    size = sum(int(np.prod(each.shape)) for each in untied.weights) * 4 / 2**20
    apart = np.abs(untied.predict(x, verbose=0) - expected).max()
    print(f"{keras.config.backend()}: untied in {seconds:.1f} s")
    print(f"weights {size:.0f} MiB, the process grew by {more:.0f} MiB ({more / size - 1:+.0%})")
    print(f"outputs up to {np.abs(expected).max():.3g}, differ by up to {apart:.2g}")


if __name__ == "__main__":
    main()
