"""TensorFloat-32 is a switch of the process, asked at every call, for it may be turned."""

from __future__ import annotations

from typing import Any

import torch

from lcmulti.errors import UnsupportedError

WIDE = (torch.float32, torch.complex64)


def convolutions_round(array: Any) -> bool:
    """Whether cuDNN may round the float32 of *array* in convolutions, as it does by default."""
    return array.is_cuda and array.dtype in WIDE and _rounds(torch.backends.cudnn.conv)


def refuse_rounding(array: Any) -> None:
    """Raise where matrix products would round the float32 of *array*.

    Raises
    ------
    UnsupportedError
        With the command that forbids it.
    """
    if array.is_cuda and array.dtype in WIDE and _rounds(torch.backends.cuda.matmul):
        raise UnsupportedError(
            "PyTorch may round float32 to TensorFloat-32; forbid it with: "
            "torch.backends.cuda.matmul.fp32_precision = 'ieee'"
        )


def _rounds(switch: Any) -> bool:
    # Also what `allow_tf32` sets; that one refuses to be read once this one has been set.
    return switch.fp32_precision not in ("none", "ieee")
