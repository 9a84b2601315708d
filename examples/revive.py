"""Load a model that Keras 2 wrote in Keras 3 and train it further (half a minute).

    python examples/revive.py [--figure FILE]

tf_keras trains a locally connected model on handwritten digits and saves it as users of Keras 2
did. `lcmulti_keras.load_legacy_model` reads the file. Both models give the same outputs.
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import tf_keras

from lcmulti.conformance.digits import load


def old_model(training, path):
    """A model as people wrote it in 2017."""
    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [
            layers.InputLayer((8, 8, 1)),
            layers.LocallyConnected2D(8, (3, 3), activation="relu"),
            layers.LocallyConnected2D(8, (3, 3), activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(training.images, training.labels, batch_size=32, epochs=12, verbose=0)
    model.save(path)
    return model


def draw(old, new, accuracies, path):
    """Draw each probability in both models, and the accuracy as training goes on."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([1e-12, 1], [1e-12, 1], color="grey", linewidth=1)
    left.plot(old.ravel(), new.ravel(), ".", markersize=2)
    left.set(
        xscale="log", yscale="log", xlabel="probability in tf_keras",
        ylabel="probability in Keras 3", xlim=(1e-12, 2), ylim=(1e-12, 2),
    )  # fmt: skip
    bars = right.bar(list(accuracies), [100 * each for each in accuracies.values()])
    right.bar_label(bars, fmt="%.1f")
    right.set(ylabel="% of test images right", ylim=(0, 110))
    figure.savefig(path, dpi=90)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", metavar="FILE")
    figure = parser.parse_args().figure
    tf_keras.utils.set_random_seed(0)
    training, testing = load()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "old.h5")
        old = old_model(training, path)
        import keras
        from lcmulti_keras import load_legacy_model

        new = load_legacy_model(path)
        before, after = (m.predict(testing.images, verbose=0) for m in (old, new))
        difference = float(np.abs(before - after).max())
        print(f"Keras {keras.__version__} on {keras.backend.backend()}")
        print(f"largest difference of {before.size:,} probabilities: {difference:.1e}")
        accuracies = {"tf_keras": np.mean(before.argmax(1) == testing.labels)}
        accuracies["Keras 3"] = np.mean(after.argmax(1) == testing.labels)
        new.compile("adam", "sparse_categorical_crossentropy")
        new.fit(training.images, training.labels, batch_size=32, epochs=6, verbose=0)
        trained = new.predict(testing.images, verbose=0).argmax(1)
        accuracies["trained on"] = np.mean(trained == testing.labels)
        new.save(Path(folder, "new.keras"))
    for name, accuracy in accuracies.items():
        print(f"{name:<10} {accuracy:.1%} of the test images")
    if figure:
        draw(before, after, accuracies, figure)
    return difference


if __name__ == "__main__":
    assert main() < 1e-5
