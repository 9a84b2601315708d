"""Whether PyTorch may round float32: a switch of the process, which is read at every call.

On a GPU it may round to TensorFloat-32. On a CPU with products of bfloat16 it may round to
bfloat16, as ``torch.set_float32_matmul_precision("medium")`` allows.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from lcmulti.errors import UnsupportedError

WIDE = (torch.float32, torch.complex64)
WIDENED = (*WIDE, torch.float16)
"""Types that are multiplied as float32, and have more digits than bfloat16."""


def convolutions_round(array: Tensor) -> bool:
    """Whether convolutions may round the float32 of *array*, as cuDNN does by default."""
    if array.is_cuda:
        return array.dtype in WIDE and _rounds(torch.backends.cudnn.conv)
    return array.dtype in WIDENED and _rounds_here("conv")


def refuse_rounding(array: Tensor) -> None:
    """Raise if matrix products would round the float32 of *array*.

    Raises
    ------
    UnsupportedError
        Names the command that forbids it.
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
    # `allow_tf32` sets this, too. It cannot be read itself once this one has been set.
    return switch.fp32_precision not in ("none", "ieee")


def _rounds_here(kind: str) -> bool:
    """Whether oneDNN may round on this CPU; it does not have TensorFloat-32."""
    return _has_bfloat16() and _allowed("mkldnn", kind) == "bf16"


def _before_it_was_a_setting(backend: str, kind: str) -> str:
    medium = kind == "matmul" and torch.get_float32_matmul_precision() == "medium"
    return "bf16" if medium else "none"


# The same as `torch.backends.mkldnn.matmul.fp32_precision`, in a fortieth of the time.
_allowed = getattr(torch._C, "_get_fp32_precision_getter", _before_it_was_a_setting)


@cache
def _has_bfloat16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
