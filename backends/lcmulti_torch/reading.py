"""Read state dicts of PyTorch from files, for `lcmulti.plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
        raise FileError(path, f"is no state dict that loads with weights_only ({error})") from error
    for inner in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(inner), dict):
            state = state[inner]
    if not isinstance(state, dict):
        raise FileError(path, "is no state dict")
    tensors = {n: v for n, v in state.items() if isinstance(v, torch.Tensor)}
    # NumPy has no bfloat16.
    return {n: (v if v.is_complex() else v.float()).numpy() for n, v in tensors.items()}
