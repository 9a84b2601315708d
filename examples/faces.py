"""Train a stack like DeepFace's on drawn faces, in which people differ by where things are.

    python examples/faces.py [--figure FILE]

DeepFace (Taigman et al., CVPR 2014) used locally connected layers on aligned faces, because the
region of the eyes has other statistics than that of the mouth. No photographs ship with lcmulti, so
faces are drawn. A person is a place and size of eyes, brows, nose and mouth; noise is added.
"""

import argparse

import numpy as np
import torch
from lcmulti_torch import LocallyConnected2d
from torch import nn

SIZE, PEOPLE, EPOCHS = 36, 16, 10


def spot(y, x, height, width):
    """A soft ellipse."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return np.exp(-(((rows - y) / height) ** 2) - ((columns - x) / width) ** 2)


def face(person):
    """A person's face without noise, from 8 numbers."""
    eyes, apart, brow, nose, mouth, wide, lips, round_ = person
    image = 0.6 * spot(18, 18, 17 + round_, 14 - round_)
    for side in (-1, 1):
        image -= spot(13 + eyes, 18 + side * (6 + apart), 1.5, 2.2)
        image -= 0.6 * spot(9 + brow, 18 + side * (6 + apart), 0.9, 3)
    image -= 0.4 * spot(19 + nose, 18, 3, 1.3)
    return image - 0.8 * spot(27 + mouth, 18, 1 + 0.3 * lips, 5 + wide)


def photographs(people, count, rng):
    """Images ``(N, 1, SIZE, SIZE)`` aligned to a pixel, with light and noise, and their people."""
    who = rng.integers(0, len(people), count)
    images = np.stack([people[each] for each in who])
    images = images * rng.uniform(0.7, 1.3, (count, 1, 1))
    for axis in (1, 2):
        images = np.stack([np.roll(image, rng.integers(-1, 2), axis - 1) for image in images])
    images = images + rng.normal(0, 0.35, images.shape)
    return torch.from_numpy(images[:, None].astype("float32")), torch.from_numpy(who)


def network(local):
    """A convolution and pooling, then three layers, local or not, as in DeepFace."""
    axes = () if local else (0, 1)

    def layer(channels, window, size, stride=1):
        return LocallyConnected2d(channels, 8, window, size, stride, shared_axes=axes)

    return nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),  # 18
        layer(8, 5, 18), nn.ReLU(),  # 14
        layer(8, 4, 14, 2), nn.ReLU(),  # 6
        layer(8, 3, 6), nn.ReLU(),  # 4
        nn.Flatten(), nn.Linear(8 * 4 * 4, PEOPLE),
    )  # fmt: skip


def train(model, training, testing):
    """Accuracy on new photographs after each epoch."""
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    curve = []
    for _ in range(EPOCHS):
        for some in torch.randperm(len(training[1])).split(64):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(training[0][some]), training[1][some])
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            curve.append((model(testing[0]).argmax(1) == testing[1]).double().mean().item())
    return curve


def draw(people, images, curves, path):
    """Draw some people, one photograph of each, and how well each network knows them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.1))
    axes = left.subplots(4, 4)
    for column in range(4):
        for row, image in enumerate(
            (people[column], images[0][column, 0], people[column + 4], images[0][column + 4, 0])
        ):
            axes[row, column].imshow(image, cmap="gray")
            axes[row, column].axis("off")
    left.suptitle("drawn people, and photographs", fontsize=10)
    plot = right.subplots()
    for name, curve in curves.items():
        plot.plot(range(1, EPOCHS + 1), [100 * each for each in curve], "o-", label=name)
    plot.set(xlabel="epoch", ylabel="% of new photographs told apart")
    plot.grid(alpha=0.3)
    plot.legend()
    figure.savefig(path, dpi=90)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", metavar="FILE")
    path = parser.parse_args().figure
    torch.manual_seed(0)
    torch.set_num_threads(1)  # more threads do not make layers this small faster
    rng = np.random.default_rng(0)
    people = [face(person) for person in rng.uniform(-1.6, 1.6, (PEOPLE, 8))]
    training, testing = photographs(people, 2000, rng), photographs(people, 1000, rng)
    curves = {}
    for name, local in (("shared weights", False), ("locally connected", True)):
        model = network(local)
        curves[name] = train(model, training, testing)
        weights = sum(each.numel() for each in model.parameters())
        print(f"{name:<18} {weights:8,} weights, {curves[name][-1]:.1%} of new photographs")
    if path:
        first = [int(np.flatnonzero(testing[1] == each)[0]) for each in range(8)]
        draw(people, (testing[0][first], None), curves, path)
    return curves


if __name__ == "__main__":
    assert main()["locally connected"][-1] > 0.5
