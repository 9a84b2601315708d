"""Convolution, locally connected, and locally connected that shares now and then, on real digits.

    python examples/sharing.py [--figure FILE]

A convolution sees a digit that has moved as the same digit. A locally connected network does not,
unless its positions share what they have learned: every few steps in training, `ShareEvery` moves
their weights towards the mean (Pogodin et al., "Towards biologically plausible convolutional
networks", NeurIPS 2021). Training images stand where they are; test images are moved.
"""

import argparse

import numpy as np
import torch
from lcmulti_torch import LocallyConnected2d, ShareEvery
from torch import nn

from lcmulti.conformance.digits import load

EPOCHS, SIDE, SHIFTS = 12, 12, (0, 1, 2)


def tensors(digits):
    """Images in the middle of ``(N, 1, 12, 12)``, and their classes."""
    images = torch.from_numpy(np.moveaxis(digits.images, -1, 1).copy())
    return nn.functional.pad(images, (2, 2, 2, 2)), torch.from_numpy(digits.labels.astype("int64"))


def network(shared):
    """Two layers, the largest answer of each filter wherever it is, and a head."""
    axes = (0, 1) if shared else ()
    return nn.Sequential(
        LocallyConnected2d(1, 16, 3, input_size=SIDE, shared_axes=axes), nn.ReLU(),
        LocallyConnected2d(16, 32, 3, input_size=10, shared_axes=axes), nn.ReLU(),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def train(model, training, sharing):
    """Adam; after each of its steps the weights may be shared."""
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    images, labels = training
    for _ in range(EPOCHS):
        for some in torch.randperm(len(labels)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[some]), labels[some]).backward()
            optimizer.step()
            if sharing is not None:
                sharing.step()


@torch.no_grad()
def accuracy(model, testing, shift):
    """On test images that are moved by *shift* pixels, in each of eight directions."""
    images, labels = testing
    steps = [(y, x) for y in (-shift, 0, shift) for x in (-shift, 0, shift) if shift == 0 or y or x]
    moved = [torch.roll(images, step, (2, 3)) for step in set(steps)]
    return float(np.mean([(model(each).argmax(1) == labels).double().mean() for each in moved]))


def draw(found, path):
    """Accuracy by shift."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, values in found.items():
        axes.plot(SHIFTS, [100 * each for each in values], "o-", label=name)
    axes.set(xlabel="pixels that test images are moved", ylabel="% right", xticks=SHIFTS)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=90)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", metavar="FILE")
    path = parser.parse_args().figure
    torch.set_num_threads(1)  # layers this small gain nothing from more
    training, testing = map(tensors, load())
    found = {}
    print(f"{'':34}" + "".join(f"moved by {shift}  " for shift in SHIFTS))
    for name, shared, steps, strength in (
        ("convolution", True, None, 0),
        ("locally connected", False, None, 0),
        ("shared every 10 steps", False, 10, 1.0),
        ("half-way, every 10 steps", False, 10, 0.5),
    ):
        torch.manual_seed(0)
        model = network(shared)
        sharing = None if steps is None else ShareEvery(model, steps, strength=strength)
        train(model, training, sharing)
        found[name] = [accuracy(model, testing, shift) for shift in SHIFTS]
        print(f"{name:34}" + "".join(f"{each:10.1%}  " for each in found[name]))
    if path:
        draw(found, path)
    return found


if __name__ == "__main__":
    answers = main()
    assert answers["convolution"][2] > answers["locally connected"][2] + 0.1
    assert answers["shared every 10 steps"][2] > answers["locally connected"][2] + 0.1
