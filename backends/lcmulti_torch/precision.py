"""What float32 may be rounded to is a switch of the process, asked at every call: it may be turned.

On a GPU to TensorFloat-32; on a CPU that has products of bfloat16, to that, as
``torch.set_float32_matmul_precision("medium")`` allows.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from lcmulti.errors import UnsupportedError

WIDE = (torch.float32, torch.complex64)
WIDENED = (*WIDE, torch.float16)
"""What is multiplied as float32, and has more digits than bfloat16."""


def convolutions_round(array: Any) -> bool:
    """Whether PyTorch may round the float32 of *array* in convolutions; cuDNN does by default."""
    if array.is_cuda:
        return array.dtype in WIDE and _rounds(torch.backends.cudnn.conv)
    return array.dtype in WIDENED and _rounds_here("conv")


def refuse_rounding(array: Any) -> None:
    """Raise where matrix products would round the float32 of *array*.

    Raises
    ------
    UnsupportedError
        With the command that forbids it.
    """
    if array.is_cuda:
        if array.dtype in WIDE and _rounds(torch.backends.cuda.matmul):
            raise UnsupportedError(
                "PyTorch may round float32 to TensorFloat-32; forbid it with: "
                "torch.backends.cuda.matmul.fp32_precision = 'ieee'"
            )
    elif array.dtype in WIDENED and _rounds_here("matmul"):
        raise UnsupportedError(
            "PyTorch may round float32 to bfloat16; forbid it with: "
            "torch.backends.mkldnn.matmul.fp32_precision = 'ieee'"
        )


def _rounds(switch: Any) -> bool:
    # Also what `allow_tf32` sets; that one refuses to be read once this one has been set.
    return switch.fp32_precision not in ("none", "ieee")


def _rounds_here(kind: str) -> bool:
    """Whether oneDNN may round on this CPU; TensorFloat-32 is none that it has."""
    return _has_bfloat16() and _allowed("mkldnn", kind) == "bf16"


def _before_it_was_a_setting(backend: str, kind: str) -> str:
    medium = kind == "matmul" and torch.get_float32_matmul_precision() == "medium"
    return "bf16" if medium else "none"


# What `torch.backends.mkldnn.matmul.fp32_precision` reads, in a fortieth of the time.
_allowed = getattr(torch._C, "_get_fp32_precision_getter", _before_it_was_a_setting)


@cache
def _has_bfloat16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
