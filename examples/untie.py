"""Untie a trained convolutional network, train it further, and see what its positions learn.

    python examples/untie.py [--figure FILE]

`untie` replaces each convolution by a locally connected layer that computes the same. Training on
images that are aligned, such as faces or these centred digits, then moves positions apart where
that helps.
"""

import argparse

import numpy as np
import torch
from lcmulti_torch import retie, untie
from torch import nn

from lcmulti.conformance.digits import load


def tensors(digits):
    """Images ``(N, 1, 8, 8)`` and their classes."""
    images = torch.from_numpy(np.moveaxis(digits.images, -1, 1).copy())
    return images, torch.from_numpy(digits.labels.astype("int64"))


def network():
    """Three convolutions, one of them depthwise."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 32, 1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 4 * 4, 10),
    )  # fmt: skip


def train(model, training, epochs, rate):
    optimizer = torch.optim.Adam(model.parameters(), rate)
    images, labels = training
    for _ in range(epochs):
        for some in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[some]), labels[some]).backward()
            optimizer.step()


@torch.no_grad()
def accuracy(model, testing):
    return (model(testing[0]).argmax(1) == testing[1]).double().mean().item()


def draw(before, after, path):
    """Draw how far the filters of each position are from their mean, and the filters."""
    from matplotlib.figure import Figure

    from lcmulti import plot

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    plot.statistic_map(after[0].weight, "distance", ax=left)
    left.set_title("distance to the mean filter, by position", fontsize="medium")
    plot.mosaic(after[0].weight, sheet=(4, 4), ax=right)
    figure.savefig(path, dpi=90)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", metavar="FILE")
    path = parser.parse_args().figure
    torch.manual_seed(0)
    torch.set_num_threads(1)  # more threads do not make layers this small faster
    training, testing = map(tensors, load())
    net = network()
    train(net, training, 10, 3e-3)
    print(f"convolutional: {accuracy(net, testing):.1%} of the test images\n")

    free = untie(net, training[0][:1])  # prints what it will make, and makes it
    with torch.no_grad():
        apart = (free(testing[0]) - net(testing[0])).abs().max().item()
    print(f"\nuntied, outputs differ by up to {apart:.1g}")
    train(free, training, 5, 1e-3)
    print(f"trained on: {accuracy(free, testing):.1%}")
    back = retie(free, tolerance=None)
    print(f"tied again to the mean over positions: {accuracy(back, testing):.1%}")
    if path:
        draw(net, free, path)
    return accuracy(net, testing), apart, accuracy(free, testing)


if __name__ == "__main__":
    first, difference, last = main()
    assert difference < 1e-3 and first > 0.9 and last > 0.9
