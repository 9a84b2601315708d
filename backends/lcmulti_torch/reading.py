"""Read state dicts of PyTorch from files, for `lcmulti.plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lcmulti.errors import FileError

__all__ = ["state_of"]


def state_of(path: Path) -> dict[str, Any]:
    """Tensors by name, in float32 or complex; also from within ``"state_dict"`` or ``"model"``.

    Raises
    ------
    FileError
        If the file cannot be loaded without executing code.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # PyTorch goes on to advise loading the file unsafely.
        why = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise FileError(path, f"is no state dict that loads with weights_only ({why})") from error
    for inner in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(inner), dict):
            state = state[inner]
    if not isinstance(state, dict):
        raise FileError(path, "is no state dict")
    tensors = {n: v for n, v in state.items() if isinstance(v, torch.Tensor)}
    return {name: _as_array(value) for name, value in tensors.items() if not value.is_meta}


def _as_array(value: torch.Tensor) -> np.ndarray:
    value = value.detach()
    if value.is_quantized:
        value = value.dequantize()
    if value.layout is not torch.strided:
        value = value.to_dense()
    # NumPy has no bfloat16.
    found: np.ndarray = (value if value.is_complex() else value.float()).resolve_conj().numpy()
    return found
