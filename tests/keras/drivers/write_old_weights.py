"""Write the weights of `old_models` with tf_keras."""

import numpy as np
import old_models
import tf_keras as k


def randomize(made, rng):
    for w in made.weights:
        if "float" in w.dtype.name:
            low = 0.5 if "variance" in w.name else -0.5
            w.assign(rng.uniform(low, 1.0, w.shape))


def write(folder, rng):
    """Into a new folder, each by names and by paths, with what it was given and what it gave."""
    folder.mkdir()
    kit = old_models.kit(k, k.layers.LocallyConnected1D, k.layers.LocallyConnected2D, same="same")
    for name, make in old_models.MODELS.items():
        for pattern, frozen in old_models.patterns(name).items():
            k.backend.clear_session()
            made = make(kit)
            old_models.freeze(made, [each == "1" for each in frozen])
            randomize(made, rng)
            shapes = old_models.SHAPES.get(name, [old_models.SHAPE])
            xs = [rng.standard_normal((3, *shape)).astype("float32") for shape in shapes]
            ys = [np.asarray(y) for y in old_models.outputs(made, xs)]
            arrays = {f"x{i}": x for i, x in enumerate(xs)} | {f"y{i}": y for i, y in enumerate(ys)}
            np.savez(folder / f"{name}.{pattern}.npz", **arrays)
            made.save_weights(folder / f"{name}.{pattern}.weights.h5")
            try:
                made.save_weights(folder / f"{name}.{pattern}.h5")
            except ValueError:  # two arrays of one name, which the format cannot hold
                (folder / f"{name}.{pattern}.h5").unlink()
