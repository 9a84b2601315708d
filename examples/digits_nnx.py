"""Train a locally connected network on real handwritten digits in Flax NNX (some seconds).

python examples/digits_nnx.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from lcmulti_jax.nnx import LocallyConnected

from lcmulti.conformance.digits import load


class Network(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = LocallyConnected(1, 8, (3, 3), (8, 8), rngs=rngs)
        self.second = LocallyConnected(8, 8, (3, 3), (8, 8), strides=2, rngs=rngs)
        self.last = nnx.Linear(8 * 4 * 4, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.second(nnx.relu(self.first(x))))
        return self.last(x.reshape(len(x), -1))


@nnx.jit
def train(model, optimizer, images, labels):
    """One step."""

    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

    optimizer.update(model, nnx.grad(loss)(model))


def main() -> float:
    training, testing = load()
    model = Network(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)
    for epoch in range(8):
        order = jax.random.permutation(jax.random.key(epoch), len(training.labels))
        for some in order[: len(order) // 64 * 64].reshape(-1, 64):
            train(model, optimizer, training.images[some], training.labels[some])
        right = float(jnp.mean(model(testing.images).argmax(1) == testing.labels))
        print(f"epoch {epoch + 1}: {right:.1%} of the test images")
    return right


if __name__ == "__main__":
    assert main() > 0.95
