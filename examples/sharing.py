"""Does sharing weights in training give a locally connected network what a convolution has?

    python examples/sharing.py [--figure FILE]

A convolution sees a digit that has moved as the same digit. A locally connected network does not,
unless its positions share what they have learned: every few steps in training, `ShareEvery` moves
their weights to their mean, or part of the way (Pogodin et al., "Towards biologically plausible
convolutional networks", NeurIPS 2021). Training images stand where they are; test images are moved.
"""

import argparse

import numpy as np
import torch
from lcmulti_torch import ShareEvery, untie
from torch import nn

from lcmulti.conformance.digits import load

EPOCHS, SHIFTS = 12, (0, 1, 2, 3)
NETWORKS = {  # what is made of the convolution: untied?, steps between sharing, strength
    "convolution": (False, None, None),
    "locally connected": (True, None, None),
    "shared every step": (True, 1, 1.0),
    "half-way every step": (True, 1, 0.5),
    "shared every 10 steps": (True, 10, 1.0),
}


def tensors(digits):
    """Images in the middle of ``(N, 1, 14, 14)``, and their classes."""
    images = torch.from_numpy(np.moveaxis(digits.images, -1, 1).copy())
    return nn.functional.pad(images, (3, 3, 3, 3)), torch.from_numpy(digits.labels.astype("int64"))


def network():
    """Two convolutions, the largest answer of each filter wherever it is, and a head."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(),
        nn.Conv2d(16, 32, 5), nn.ReLU(),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def train(model, training, sharing):
    """Adam; after each of its steps the weights may be shared."""
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    images, labels = training
    for _ in range(EPOCHS):
        for some in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[some]), labels[some]).backward()
            optimizer.step()
            if sharing is not None:
                sharing.step()


@torch.no_grad()
def accuracy(model, testing, shift):
    """On test images that are moved by *shift* pixels, down, up, right and left in turn."""
    images, labels = testing
    ways = [(shift, 0), (-shift, 0), (0, shift), (0, -shift)] if shift else [(0, 0)]
    moved = [torch.roll(images, way, (2, 3)) for way in ways]
    return float(np.mean([(model(each).argmax(1) == labels).double().mean() for each in moved]))


def draw(found, path):
    """Accuracy by shift: the mean over seeds, and each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, runs in found.items():
        (line,) = axes.plot(SHIFTS, 100 * np.mean(runs, 0), "o-", label=name)
        for each in runs:
            axes.plot(SHIFTS, 100 * np.asarray(each), color=line.get_color(), lw=0.5, alpha=0.6)
    axes.set(xlabel="pixels that test images are moved", ylabel="% right", xticks=SHIFTS)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=90)


def run(kind, training, testing, seed):
    """Train one network; its accuracy at each shift."""
    untied, steps, strength = kind
    torch.manual_seed(seed)
    model = network()
    if untied:  # so that all positions start alike, as those of the convolution
        model = untie(model, training[0][:1], tell=None)
    sharing = None if steps is None else ShareEvery(model, steps, strength=strength)
    train(model, training, sharing)
    return [accuracy(model, testing, shift) for shift in SHIFTS]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", metavar="FILE")
    parser.add_argument("--seeds", type=int, default=2, help="how many times to train each")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # layers this small gain nothing from more
    training, testing = map(tensors, load())
    print(f"{'test images moved by':24}" + "".join(f"{shift:7} px" for shift in SHIFTS))
    found = {}
    for name, kind in NETWORKS.items():
        found[name] = [run(kind, training, testing, seed) for seed in range(arguments.seeds)]
        mean = np.mean(found[name], 0)
        print(f"{name:24}" + "".join(f"{each:10.1%}" for each in mean), flush=True)
    if arguments.figure:
        draw(found, arguments.figure)
    return {name: np.mean(runs, 0) for name, runs in found.items()}


if __name__ == "__main__":
    answers = main()
    assert answers["convolution"][0] > 0.8
    assert answers["shared every step"][2] > answers["locally connected"][2]
