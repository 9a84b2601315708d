"""Train a locally connected network on real handwritten digits in Equinox (some seconds).

python examples/digits_equinox.py
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from lcmulti_jax.equinox import LocallyConnected2d

from lcmulti.conformance.digits import load

RATE, MOMENTUM = 0.05, 0.9


class Network(eqx.Module):
    first: LocallyConnected2d
    second: LocallyConnected2d
    last: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        self.first = LocallyConnected2d(1, 8, 3, input_size=8, padding=1, key=keys[0])
        self.second = LocallyConnected2d(8, 8, 3, input_size=8, stride=2, padding=1, key=keys[1])
        self.last = eqx.nn.Linear(8 * 4 * 4, 10, key=keys[2])

    def __call__(self, image):
        """One image ``(1, 8, 8)``."""
        return self.last(jax.nn.relu(self.second(jax.nn.relu(self.first(image)))).ravel())


@eqx.filter_jit
def train(model, velocity, images, labels):
    """One step of gradient descent with momentum."""

    def loss(model):
        chances = jax.nn.log_softmax(jax.vmap(model)(images))
        return -jnp.take_along_axis(chances, labels[:, None], 1).mean()

    gradient = eqx.filter_grad(loss)(model)
    velocity = jax.tree.map(lambda v, g: MOMENTUM * v - RATE * g, velocity, gradient)
    return eqx.apply_updates(model, velocity), velocity


def main() -> float:
    training, testing = load()
    images, seen = (np.moveaxis(each.images, -1, 1) for each in (training, testing))
    model = Network(jax.random.key(0))
    velocity = jax.tree.map(jnp.zeros_like, eqx.filter(model, eqx.is_array))
    for epoch in range(8):
        order = np.random.default_rng(epoch).permutation(len(images))
        for some in order[: len(order) // 64 * 64].reshape(-1, 64):
            model, velocity = train(model, velocity, images[some], training.labels[some])
        right = float(jnp.mean(jax.vmap(model)(seen).argmax(1) == testing.labels))
        print(f"epoch {epoch + 1}: {right:.1%} of the test images")
    return right


if __name__ == "__main__":
    assert main() > 0.9
