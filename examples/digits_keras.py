"""Train a locally connected network on real handwritten digits in Keras 3 (some seconds).

KERAS_BACKEND=jax python examples/digits_keras.py
"""

import keras
from lcmulti_keras import LocallyConnected2D

from lcmulti.conformance.digits import load


def main() -> float:
    keras.utils.set_random_seed(0)
    training, testing = load()
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            LocallyConnected2D(8, 3, padding="same", activation="relu"),
            LocallyConnected2D(8, 3, strides=2, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    model.fit(
        training.images, training.labels, batch_size=64, epochs=8, verbose=2,
        validation_data=(testing.images, testing.labels),
    )  # fmt: skip
    right = model.evaluate(testing.images, testing.labels, verbose=0)[1]
    print(f"{right:.1%} of the test images, on Keras' backend {keras.backend.backend()}")
    return right


if __name__ == "__main__":
    assert main() > 0.9
