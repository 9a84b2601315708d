"""Convert the weights of ``CuDNNLSTM`` and ``CuDNNGRU`` of Keras 2 to those of LSTM and GRU.

They have each gate's kernels transposed, and two biases. Only the shape of the bias distinguishes
them from an LSTM and a GRU: ``(8 * units,)`` instead of ``(4 * units,)``, ``(6 * units,)`` instead
of ``(2, 3 * units)``.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import keras
import numpy as np

from lcmulti_keras.legacy.matches import Convert, Match
from lcmulti_keras.legacy.structure import Slot

__all__ = ["CUDNN", "conversion", "together"]

CUDNN = {"CuDNNLSTM": "LSTM", "CuDNNGRU": "GRU"}
"""Classes of Keras 2 that only ran on GPUs, and their replacements."""


def _gates(cell: Any) -> int:
    """Number of gates of a cell that cuDNN also has, or 0."""
    if isinstance(cell, keras.layers.LSTMCell):
        return 4
    return 3 if isinstance(cell, keras.layers.GRUCell) and cell.reset_after else 0


def conversion(slot: Slot, shape: tuple[int, ...]) -> Convert | None:
    """The conversion of a bias of cuDNN to that of the cell; None for any other array."""
    cell, gates = slot.owner, _gates(slot.owner)
    if not gates or slot.variable is not cell.bias or shape != (2 * gates * cell.units,):
        return None
    return _added if gates == 4 else _in_two_rows


def together(matches: list[Match], cell: Any) -> list[Match]:
    """Also convert the kernels of a cell if its bias is from cuDNN."""
    if not any(each.convert in (_added, _in_two_rows) for each in matches):
        return matches
    gates = _gates(cell)
    of_kernel = {
        id(cell.kernel): partial(_input_kernel, gates=gates),
        id(cell.recurrent_kernel): partial(_recurrent_kernel, gates=gates),
    }
    return [
        replace(each, convert=of_kernel.get(id(each.variable), each.convert), stored_as="cuDNN")
        for each in matches
    ]


def _input_kernel(kernel: np.ndarray, gates: int) -> np.ndarray:
    """Each gate's ``(channels, units)`` from the same numbers in Fortran order."""
    parts = np.hsplit(kernel, gates)
    return np.hstack([part.T.reshape(part.shape, order="F") for part in parts])


def _recurrent_kernel(kernel: np.ndarray, gates: int) -> np.ndarray:
    return np.hstack([part.T for part in np.hsplit(kernel, gates)])


def _added(bias: np.ndarray) -> np.ndarray:
    return bias.reshape(2, -1).sum(axis=0)


def _in_two_rows(bias: np.ndarray) -> np.ndarray:
    return bias.reshape(2, -1)
