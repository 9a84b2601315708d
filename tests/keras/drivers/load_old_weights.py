"""Load what `write_old_weights` wrote: ``python load_old_weights.py FOLDER``.

Prints JSON: for each model how many loads gave what tf_keras' gave, and which did not.
"""

import json
import os
import sys
from itertools import product
from pathlib import Path

if os.environ["KERAS_BACKEND"] == "torch":
    import torch  # noqa: F401 - before TensorFlow, which Keras imports for its data sets
import keras
import lcmulti_keras
import numpy as np
import old_models

from lcmulti.errors import FileError

KIT = old_models.kit(
    keras, lcmulti_keras.LocallyConnected1D, lcmulti_keras.LocallyConnected2D, same="keras_same"
)


def check(folder, name, saved, suffix, frozen, others):
    """What came of one load: None, or a reason to refuse it, or the difference."""
    arrays = np.load(folder / f"{name}.{saved}.npz")
    keras.utils.clear_session()
    for _ in range(others):  # whose names are taken then
        old_models.MODELS[name](KIT)
    made = old_models.MODELS[name](KIT)
    old_models.freeze(made, [each == "1" for each in frozen])
    try:
        lcmulti_keras.load_legacy_weights(made, folder / f"{name}.{saved}{suffix}")
    except FileError as error:
        return error.reason
    ys = old_models.outputs(made, [arrays[each] for each in sorted(arrays) if each[0] == "x"])
    wanted = [arrays[each] for each in sorted(arrays) if each[0] == "y"]
    worst = max(
        np.abs(keras.ops.convert_to_numpy(y) - want).max() / max(1, np.abs(want).max())
        for y, want in zip(ys, wanted, strict=True)
    )
    return None if worst < 1e-5 else float(worst)


def main():
    folder, found = Path(sys.argv[1]), {}
    for name in old_models.MODELS:
        patterns = old_models.patterns(name)
        rows = found[name] = {"loaded": 0, "wrong": [], "refused": []}
        cases = product(patterns, (".h5", ".weights.h5"), patterns, (0, 1))
        for saved, suffix, now, others in cases:
            if not (folder / f"{name}.{saved}{suffix}").exists():
                continue
            if suffix == ".weights.h5" and (saved, now, others) != ("none", "none", 1):
                continue  # by paths, neither says anything
            came = check(folder, name, saved, suffix, patterns[now], others)
            if came is None:
                rows["loaded"] += 1
            else:
                case = f"{saved}{suffix}, frozen now: {now}, others: {others}"
                rows["refused" if isinstance(came, str) else "wrong"].append((case, came))
    print(json.dumps(found))


main()
