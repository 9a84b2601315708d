"""Locally connected and convolutional networks on real handwritten digits (half a minute).

    python examples/digits_compare.py [--figure FILE]

Two networks have the same shape and differ only in whether positions share their weights. Digits
are centred and of one size, so what a position sees means the same in every image.
"""

import argparse

import numpy as np
import torch
from lcmulti_torch import LocallyConnected2d
from torch import nn

from lcmulti.conformance.digits import load

EPOCHS = 12


def tensors(digits):
    """Images ``(N, 1, 8, 8)`` and their classes."""
    images = torch.from_numpy(np.moveaxis(digits.images, -1, 1).copy())
    return images, torch.from_numpy(digits.labels.astype("int64"))


def network(shared):
    """Two layers and a head."""
    axes = (0, 1) if shared else ()  # shared along both axes: a convolution
    return nn.Sequential(
        LocallyConnected2d(1, 8, 3, input_size=8, padding=1, shared_axes=axes), nn.ReLU(),
        LocallyConnected2d(8, 8, 3, input_size=8, stride=2, padding=1, shared_axes=axes), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 4 * 4, 10),
    )  # fmt: skip


def train(model, training, testing):
    """Accuracy on the test images after each epoch."""
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    images, labels = training
    curve = []
    for _ in range(EPOCHS):
        for some in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[some]), labels[some]).backward()
            optimizer.step()
        with torch.no_grad():
            right = model(testing[0]).argmax(1) == testing[1]
            curve.append(right.double().mean().item())
    return curve


def draw(curves, model, path):
    """Accuracy by epoch, and what the first filter looks for at each position."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, curve in curves.items():
        left.plot(range(1, EPOCHS + 1), [100 * each for each in curve], "o-", label=name)
    left.set(xlabel="epoch", ylabel="% of test images right")
    left.grid(alpha=0.3)
    left.legend()
    weights = model[0].weight.detach()[..., 0, 0]  # (8, 8, 3, 3): position, tap
    tiled = weights.permute(0, 2, 1, 3).reshape(24, 24).numpy()
    shown = right.imshow(tiled, cmap="RdBu", vmin=-abs(tiled).max(), vmax=abs(tiled).max())
    right.set_xticks(np.arange(2.5, 23), [])
    right.set_yticks(np.arange(2.5, 23), [])
    right.grid(color="black", linewidth=0.5)
    right.set_title("one filter, 3 x 3 weights at each of 8 x 8 positions", fontsize=10)
    figure.colorbar(shown, ax=right, shrink=0.8)
    figure.savefig(path, dpi=90)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", metavar="FILE")
    path = parser.parse_args().figure
    torch.manual_seed(0)
    torch.set_num_threads(1)  # more threads do not make layers this small faster
    training, testing = map(tensors, load())
    curves = {}
    for name, shared in (("convolution", True), ("locally connected", False)):
        model = network(shared)
        curves[name] = train(model, training, testing)
        weights = sum(each.numel() for each in model.parameters())
        print(f"{name:<18} {weights:6,} weights, {curves[name][-1]:.1%} of the test images")
    if path:
        draw(curves, model, path)
    return curves


if __name__ == "__main__":
    assert min(curve[-1] for curve in main().values()) > 0.9
