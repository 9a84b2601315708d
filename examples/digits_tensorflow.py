"""Train a locally connected network on real handwritten digits in TensorFlow (some seconds).

python examples/digits_tensorflow.py
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

import lcmulti
from lcmulti.conformance.digits import load

RATE, MOMENTUM = 0.05, 0.9


class Network(tf.Module):
    """Two locally connected layers, which are an operation and its weights, and a head."""

    def __init__(self):
        super().__init__()
        self.layers = []
        for seed, (channels, stride) in enumerate(((1, 1), (8, 2))):
            spec = lcmulti.LocalConvSpec(
                (8, 8, channels), 8, 3, strides=stride, padding=1, data_format="channels_last"
            )
            kernel, bias = map(tf.Variable, lcmulti.initial_weights(spec, seed=seed))
            self.layers.append((kernel, bias, stride))
        self.last = tf.Variable(tf.zeros((8 * 4 * 4, 10)))

    def __call__(self, images):
        for kernel, bias, stride in self.layers:
            images = tf.nn.relu(
                lcmulti.local_conv(
                    images, kernel, bias, strides=stride, padding=1, data_format="channels_last"
                )
            )
        return tf.reshape(images, (-1, 8 * 4 * 4)) @ self.last


def trainer(model):
    """One step of gradient descent with momentum."""
    weights = model.trainable_variables
    velocities = [tf.Variable(tf.zeros_like(each)) for each in weights]

    @tf.function
    def train(images, labels):
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model(images))
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, weights)
        for weight, velocity, gradient in zip(weights, velocities, gradients, strict=True):
            velocity.assign(MOMENTUM * velocity - RATE * gradient)
            weight.assign_add(velocity)

    return train


def main() -> float:
    training, testing = load()
    model = Network()
    train = trainer(model)
    for epoch in range(8):
        order = np.random.default_rng(epoch).permutation(len(training.labels))
        for some in order[: len(order) // 64 * 64].reshape(-1, 64):
            labels = training.labels[some].astype("int32")
            train(tf.constant(training.images[some]), tf.constant(labels))
        right = float(np.mean(model(testing.images).numpy().argmax(1) == testing.labels))
        print(f"epoch {epoch + 1}: {right:.1%} of the test images")
    return right


if __name__ == "__main__":
    assert main() > 0.9
