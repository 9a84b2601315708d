"""A topographic sheet: filters of natural images that neighbours in the cortex would share.

    python examples/topography.py [--figure FILE]

A small All-TNN (Lu et al., arXiv 2308.09431): a locally connected layer codes patches of a
photograph sparsely, with filters of its own at each of 6 x 6 positions, 16 each. The penalty
`sheet_smoothness` lays them on a sheet of 24 x 24 filters and asks neighbours to be alike.
Preferred orientations then change smoothly over the sheet. The photograph ships with matplotlib.
"""

import argparse

import numpy as np
import torch
from lcmulti_torch import LocallyConnected2d, LocallyConnectedTranspose2d
from torch import nn

import lcmulti

SIDE, WINDOW, STRIDE, SHEET = 24, 9, 3, (4, 4)
STEPS, BATCH = 250, 32


def photograph():
    """The photograph in grey and whitened, so that all frequencies are about as strong."""
    from matplotlib import cbook, image

    with cbook.get_sample_data("grace_hopper.jpg") as file:
        grey = image.imread(file, format="jpg").astype("float64").mean(-1)
    fy, fx = np.meshgrid(*(np.fft.fftfreq(n) for n in grey.shape), indexing="ij")
    radius = np.hypot(fy, fx)
    white = np.fft.ifft2(np.fft.fft2(grey) * radius * np.exp(-((radius / 0.35) ** 4))).real
    return torch.from_numpy((white / white.std()).astype("float32"))


def patches(picture):
    """A batch ``(N, 1, 24, 24)`` of patches from random places."""
    rows = torch.randint(picture.shape[0] - SIDE, (BATCH,))
    columns = torch.randint(picture.shape[1] - SIDE, (BATCH,))
    some = [picture[r : r + SIDE, c : c + SIDE] for r, c in zip(rows, columns, strict=True)]
    return torch.stack(some)[:, None]


def train(picture, factor):
    """The coding layer after training, and its remaining error."""
    torch.manual_seed(0)
    filters = SHEET[0] * SHEET[1]
    coding = LocallyConnected2d(1, filters, WINDOW, SIDE, STRIDE)
    decoding = LocallyConnectedTranspose2d(filters, 1, WINDOW, coding.output_size, STRIDE)
    optimizer = torch.optim.Adam([*coding.parameters(), *decoding.parameters()], 5e-3)
    for _ in range(STEPS):
        x = patches(picture)
        code = nn.functional.softplus(coding(x), 4)
        error = (decoding(code) - x).square().mean()
        penalty = lcmulti.sheet_smoothness(
            coding.weight, coding.bias, coding.spec, sheet=SHEET, neighbours=8
        )
        optimizer.zero_grad()
        (error + 0.02 * code.mean() + factor * penalty).backward()
        optimizer.step()
    return coding, error.item(), penalty.item()


def draw(layers, path):
    """Filters and orientation maps, without and with the penalty."""
    from matplotlib.figure import Figure

    from lcmulti import plot

    figure = Figure(figsize=(10, 9), layout="constrained")
    for (name, layer), (left, right) in zip(layers.items(), figure.subplots(2, 2), strict=True):
        plot.mosaic(layer.weight, sheet=SHEET, ax=left)
        left.set_title(f"{name}: 24 x 24 filters", fontsize="medium")
        plot.statistic_map(layer.weight, "orientation", sheet=SHEET, ax=right)
        right.set_title("preferred orientation", fontsize="medium")
    figure.savefig(path, dpi=80)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", metavar="FILE")
    path = parser.parse_args().figure
    torch.set_num_threads(1)  # more threads do not make layers this small faster
    picture, layers, penalties = photograph(), {}, {}
    print("                 error   sheet_smoothness")
    for name, factor in (("without penalty", 0.0), ("with penalty", 1.0)):
        layers[name], error, penalties[name] = train(picture, factor)
        print(f"{name:16}{error:6.3f}   {penalties[name]:.3f}")
    if path:
        draw(layers, path)
    return penalties


if __name__ == "__main__":
    found = main()
    assert found["with penalty"] < 0.3 < found["without penalty"]
