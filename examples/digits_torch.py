"""Train a locally connected network on real handwritten digits in PyTorch (some seconds).

python examples/digits_torch.py
"""

import numpy as np
import torch
from lcmulti_torch import LocallyConnected2d
from torch import nn

from lcmulti.conformance.digits import load


def tensors(digits):
    """Images ``(N, 1, 8, 8)`` and their classes."""
    images = torch.from_numpy(np.moveaxis(digits.images, -1, 1).copy())
    return images, torch.from_numpy(digits.labels.astype("int64"))


def main() -> float:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # more threads do not make layers this small faster
    training, testing = map(tensors, load())
    model = nn.Sequential(
        LocallyConnected2d(1, 8, 3, input_size=8, padding=1), nn.ReLU(),
        LocallyConnected2d(8, 8, 3, input_size=8, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 4 * 4, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    images, labels = training
    for epoch in range(8):
        order = torch.randperm(len(labels))
        for some in order.split(64):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images[some]), labels[some])
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            right = (model(testing[0]).argmax(1) == testing[1]).double().mean().item()
        print(f"epoch {epoch + 1}: {right:.1%} of the test images")
    return right


if __name__ == "__main__":
    assert main() > 0.95
