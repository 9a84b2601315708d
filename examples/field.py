"""Fit a gridded field with weights for every pixel, in JAX (some seconds).

    python examples/field.py [--figure FILE]

At each pixel of a 64 x 64 grid the response depends on two predictors, in a way that changes over
the map, as local weather depends on a coarse forecast. A 1 x 1 window is a regression at each
pixel. `lcmulti.smoothness` lets neighbouring pixels share what they learn.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

import lcmulti

SIZE, DAYS, STEPS, RATE, PENALTY = 64, 24, 300, 100.0, 1.0
SPEC = lcmulti.LocalConvSpec((SIZE, SIZE, 2), filters=1, kernel_size=1, data_format="channels_last")


def truth():
    """Weights ``(SIZE, SIZE, 2)`` that change over the map: a ridge and a gradient."""
    rows, columns = np.mgrid[:SIZE, :SIZE] / SIZE
    ridge = np.exp(-((rows - 0.3 - 0.4 * columns) ** 2) / 0.01)
    return np.stack([2 * ridge, 1 - 2 * columns], -1).astype("float32")


def fit(x, y, penalty):
    """Fit the weights by gradient descent."""

    def loss(kernel):
        error = lcmulti.local_conv(x, kernel, data_format="channels_last") - y
        return jnp.square(error).mean() + penalty * lcmulti.smoothness(
            kernel, SPEC, distance="squared"
        )

    @jax.jit
    def descend(kernel):
        def step(_, kernel):
            return kernel - RATE * jax.grad(loss)(kernel)

        return jax.lax.fori_loop(0, STEPS, step, kernel)

    return np.asarray(descend(jnp.zeros(SPEC.kernel_shape)))[:, :, 0, 0, :, 0]


def draw(maps, path):
    """Draw the two weights over the map: true, fitted alone, and fitted with neighbours."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.6), layout="constrained")
    axes = figure.subplots(2, len(maps))
    for column, (name, weights) in enumerate(maps.items()):
        for row in range(2):
            shown = axes[row, column].imshow(weights[..., row], cmap="RdBu_r", vmin=-2, vmax=2)
            axes[row, column].set_xticks([])
            axes[row, column].set_yticks([])
        axes[0, column].set_title(name, fontsize=10)
    for row in range(2):
        axes[row, 0].set_ylabel(f"weight of predictor {row + 1}")
    figure.colorbar(shown, ax=axes, shrink=0.6)
    figure.savefig(path, dpi=90)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", metavar="FILE")
    path = parser.parse_args().figure
    rng = np.random.default_rng(0)
    weights = truth()
    x = rng.normal(size=(DAYS, SIZE, SIZE, 2)).astype("float32")
    y = (x * weights).sum(-1, keepdims=True)
    y = y + rng.normal(0, 1.5, y.shape).astype("float32")
    maps = {"true": weights}
    errors = {}
    for name, penalty in (("each pixel alone", 0.0), ("with its neighbours", PENALTY)):
        maps[name] = fit(x, y, penalty)
        errors[name] = float(np.sqrt(np.square(maps[name] - weights).mean()))
        print(f"{name:<20} weights off by {errors[name]:.3f} (root mean square)")
    if path:
        draw(maps, path)
    return errors


if __name__ == "__main__":
    errors = main()
    assert errors["with its neighbours"] < errors["each pixel alone"]
