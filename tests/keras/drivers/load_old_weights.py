"""Load what `write_old_weights` wrote: how many loads gave what tf_keras' gave, which did not."""

from itertools import product

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
    keras.utils.clear_session(free_memory=False)  # collecting takes longer than all else
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


def cases(name, every):
    """How a model was frozen, the format, how it is frozen now, and models made before it."""
    patterns = old_models.patterns(name)
    by_names = [*product(patterns, [".h5"], patterns, [0]), *((p, ".h5", p, 1) for p in patterns)]
    # By paths, neither says anything.
    return [*(by_names if every else by_names[-1:]), ("none", ".weights.h5", "none", 1)]


def checked(folder, every):
    """For each model what came of all its cases, or of one of each format."""
    found = {}
    for name in old_models.MODELS:
        rows = found[name] = {"loaded": 0, "wrong": [], "refused": []}
        for saved, suffix, now, others in cases(name, every):
            if not (folder / f"{name}.{saved}{suffix}").exists():
                continue
            came = check(folder, name, saved, suffix, old_models.patterns(name)[now], others)
            if came is None:
                rows["loaded"] += 1
            else:
                case = f"{saved}{suffix}, frozen now: {now}, others: {others}"
                rows["refused" if isinstance(came, str) else "wrong"].append((case, came))
    return found
