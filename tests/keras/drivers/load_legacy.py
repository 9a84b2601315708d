"""Load old models on the running backend of Keras 3: ``python load_legacy.py FOLDER...``.

It prints JSON: for each file, the largest difference from its old outputs and their scale, or the
error; also the warnings, and whether it can be saved again. The NumPy backend loads every file, the
others only those in `TELLING`.
"""

import json
import os
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

if os.environ["KERAS_BACKEND"] == "torch":
    import torch  # noqa: F401 - before TensorFlow, which Keras imports for its data sets
import keras
import lcmulti_keras
import load_old_weights
import numpy as np
import reading_here

BACKEND = keras.config.backend()
TELLING = {
    "lc2_cf_i2_same.h5", "e_nest.keras", "time_distributed.keras", "bidirectional.h5",
    "names_with_slashes.keras", "normalization_and_activations.h5", "channels_first_head.h5",
    "other_convolutions.keras", "embedding_1d.h5", "attention.keras", "mixed_precision.h5",
    "double.keras", "frozen_parts.h5", "preprocessing.keras", "recurrent_cells.h5",
    "initial_state.keras", "layers_as_activations.h5", "softmax_over_axes.keras", "stateful.h5",
    "compiled.keras", "compiled_for_two.h5", "compiled_for_all.keras", "compiled_for_one.h5",
    "compiled_for_objects.keras", "big_endian.h5",
}  # fmt: skip
"""Files in which the backend has something of its own to do: types, states, loops, training."""


def outputs(model, xs):
    y = model(xs if len(xs) > 1 else xs[0], training=False)
    assert not isinstance(y, list) or len(y) > 1  # Keras 2 had no lists of one
    ys = y if isinstance(y, list) else [y]
    return [keras.ops.convert_to_numpy(each).astype("float64") for each in ys]


def evaluated(model, arrays):
    """What evaluating gives, and what it gave tf_keras, by name."""
    if "evaluated" not in arrays or BACKEND == "numpy":
        return None
    model.run_eagerly = True  # this is not about compiling, which takes seconds
    came = model.evaluate(arrays["x0"], [arrays["t0"], arrays["t1"]], verbose=0, return_dict=True)
    return came, json.loads(str(arrays["evaluated"]))


def difference(actual, expected):
    return max(float(np.abs(a - e).max()) for a, e in zip(actual, expected, strict=True))


def check(path):
    arrays = np.load(path.parent / f"{path.name.split('.')[0]}.npz")
    xs = [arrays[name] for name in sorted(arrays) if name.startswith("x")]
    expected = [arrays[name] for name in sorted(arrays) if name.startswith("y")]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = lcmulti_keras.load_legacy_model(path)
    ys = outputs(model, xs)
    same = 0.0
    if path.suffix == ".keras":  # an .h5 file of the same model is beside it
        with tempfile.TemporaryDirectory() as folder:
            again = Path(folder) / "again.keras"
            model.save(again)
            same = difference(outputs(keras.models.load_model(again), xs), ys)
    return {
        "difference": difference(ys, expected),
        "scale": max(float(np.abs(each).max()) for each in expected),
        "again": same,
        "dtype": str(expected[0].dtype),
        "policy": [layer.dtype_policy.name for layer in model.layers][-1],
        "warnings": [str(w.message) for w in caught if "not carried over" in str(w.message)],
        "optimizer": getattr(getattr(model, "optimizer", None), "name", None),
        "loss": str(getattr(model, "loss", None)),
        "evaluated": evaluated(model, arrays),
    }


def check_weights(folder):
    arrays = np.load(folder / "weights_only.npz")
    found = {}
    for name in ("weights_only_names.h5", "weights_only.weights.h5"):
        model = keras.Sequential([
            keras.Input((5, 6, 3)),
            lcmulti_keras.LocallyConnected2D(4, (2, 3), (1, 2), padding="keras_same"),
            keras.layers.BatchNormalization(), keras.layers.Flatten(), keras.layers.Dense(2),
        ])  # fmt: skip
        lcmulti_keras.load_legacy_weights(model, folder / name)
        found[name] = difference(outputs(model, [arrays["x0"]]), [arrays["y0"]])
    return found


def main():
    found = {}
    if BACKEND == "numpy":  # which loads most files
        reading_here.read_here()
    for folder in map(Path, sys.argv[1:]):
        for path in sorted([*folder.glob("*.h5"), *folder.glob("*.keras")]):
            if path.name.startswith("weights_only"):
                continue
            if BACKEND != "numpy" and path.name not in TELLING:
                continue
            try:
                found[path.name] = check(path)
            except Exception as error:
                text = "".join(traceback.format_exception(error)[-3:])
                found[path.name] = {"error": f"{type(error).__name__}: {error}", "trace": text}
        if (folder / "weights_only.npz").exists():
            found["weights_only"] = check_weights(folder)
        # On JAX layers keep their attributes as on NumPy, and compiling takes a minute.
        if (folder / "weights").exists() and BACKEND != "jax":
            reading_here.read_here()
            # Which weights go where, no backend changes but by how it orders attributes.
            every = BACKEND == "numpy"
            found["old_models"] = load_old_weights.checked(folder / "weights", every)
    print(json.dumps(found))


main()
