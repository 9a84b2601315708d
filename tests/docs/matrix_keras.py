"""Support matrix of Keras. For each of its backends, one process runs all cells."""

from __future__ import annotations

import functools
import re

from helpers_keras import BACKENDS, DRIVERS, run_driver
from matrix_cells import Matrix

DRIVER = "check_support.py"
USES = re.findall(r'@use\("([^"]+)"\)', (DRIVERS / DRIVER).read_text("utf-8"))
EXPORTS = [use for use in USES if use.startswith("export")]
TRAINING = [use for use in USES if use.startswith("fit")]

ABOUT = """Across are Keras' backends. What is used is a model of `LocallyConnected2D` and
`LocallyConnected2DTranspose`, of each one with and one without a `rank`.

"""
MATRIX = Matrix("keras", "Keras 3", ABOUT)
found = functools.cache(lambda backend: run_driver(DRIVER, backend))


def cell(use):
    def check(backend):
        trouble = found(backend)[use]
        assert trouble is None, trouble

    return check


for _backend in BACKENDS:
    MATRIX.row(_backend, needs=_backend)(lambda backend=_backend: backend)
for _use in USES:
    MATRIX.column(_use, slow=True)(cell(_use))

# Keras itself cannot do these, not even with a Dense layer. The exception is ONNX from JAX: a
# Dense layer has only JAX's own primitives, and jax2onnx translates no others.
MATRIX.limits |= {
    **{("numpy", use): "Keras trains nothing on NumPy." for use in TRAINING},
    **{("numpy", use): "Keras exports nothing on NumPy." for use in EXPORTS},
    **{
        (backend, "keras.distribution"): "Keras distributes on JAX alone."
        for backend in BACKENDS
        if backend != "jax"
    },
    ("torch", "export, SavedModel"): (
        "Keras goes through torch_xla, whose last release, 2.9, is not for this PyTorch."
    ),
    ("jax", "export, LiteRT"): "Keras exports to LiteRT on TensorFlow and PyTorch alone.",
    ("jax", "export, ONNX"): (
        "Keras goes through jax2onnx, which translates JAX's own primitives and no others."
    ),
}
# The packages that Keras needs besides its backend.
MATRIX.needs |= {
    ("tensorflow", "export, ONNX"): ("tf2onnx", "onnxruntime"),
    ("jax", "export, ONNX"): ("jax2onnx", "onnxruntime"),
    ("torch", "export, ONNX"): ("onnx", "onnxscript", "onnxruntime"),
    ("torch", "export, LiteRT"): ("litert_torch",),
    ("jax", "export, SavedModel"): ("tensorflow",),
}
