"""Real handwritten digits: the UCI optical digits shipped in ``data/`` (see DIGITS.md there)."""

from __future__ import annotations

from importlib import resources
from typing import NamedTuple

import numpy as np

__all__ = ["Digits", "load"]

EVERY = 4
"""One image in this many is for testing. The file is sorted by writer, so both parts have all."""


class Digits(NamedTuple):
    """Images and their classes, in a fixed order.

    Parameters
    ----------
    images : ndarray
        ``(N, 8, 8, 1)``, float32 in ``[0, 1]``: multiples of 1/16, exact in every type.
    labels : ndarray
        ``(N,)``, 0 to 9.
    """

    images: np.ndarray
    labels: np.ndarray


def load() -> tuple[Digits, Digits]:
    """Training and test images: 1347 and 450."""
    with (resources.files(__package__) / "data" / "digits.npz").open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        images, labels = archive["images"], archive["labels"]
    scaled = images[..., np.newaxis].astype(np.float32) / 16
    testing = np.arange(len(labels)) % EVERY == 0
    return Digits(scaled[~testing], labels[~testing]), Digits(scaled[testing], labels[testing])
