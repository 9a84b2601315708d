"""Padding with other than zeros: elements are taken along each axis; and the adjoint of that."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lcmulti_torch.memory import is_channels_first, to_first, to_last

Taken = tuple[tuple[int, np.ndarray], ...]
"""`lcmulti.plugins.contract.Steps.padding_indices`."""


def take(array: Tensor, indices: np.ndarray, axis: int) -> Tensor:
    """`numpy.take` from ``(N, *size, channels)``; channels first in memory stays channels first."""
    chosen = torch.tensor(indices.tolist(), device=array.device)
    if axis and is_channels_first(array):
        return to_last(to_first(array).index_select(axis + 1, chosen))
    return array.index_select(axis, chosen)


def padded(x: Tensor, taken: Taken) -> Tensor:
    """``(N, *size, channels)`` with padding around it."""
    for axis, indices in taken:
        x = take(x, indices, axis)
    return x


def unpadded(dx: Tensor, taken: Taken) -> Tensor:
    """The adjoint of `padded`: elements are added where they were taken from."""
    for axis, indices in reversed(taken):
        chosen = torch.tensor(indices.tolist(), device=dx.device)
        shape = list(dx.shape)
        shape[axis] = int(indices.max()) + 1  # every element was taken at least once
        dx = dx.new_zeros(shape).index_add_(axis, chosen, dx)
    return dx
