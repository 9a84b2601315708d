"""Whether PyTorch may round float32: a switch of the process, which is read at every call.

On a GPU it may round to TensorFloat-32. On a CPU with products of bfloat16 it may round to
bfloat16, as ``torch.set_float32_matmul_precision("medium")`` allows.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from lcmulti.errors import UnsupportedError

WIDE = (torch.float32, torch.complex64)
WIDENED = (*WIDE, torch.float16)
"""Types that are multiplied as float32, and have more digits than bfloat16."""


def convolutions_round(array: Tensor) -> bool:
    """Whether convolutions may round the float32 of *array*, as cuDNN does by default."""
    if array.is_cuda:
        return array.dtype in WIDE and _rounds_on_gpu("conv")
    return array.dtype in WIDENED and _rounds_here("conv")


def refuse_rounding(array: Tensor) -> None:
    """Raise if matrix products would round the float32 of *array*.

    Raises
    ------
    UnsupportedError
        Names the command that forbids it.
    """
    if array.is_cuda:
        if array.dtype in WIDE and _rounds_on_gpu("matmul"):
            switch = "fp32_precision = 'ieee'" if _has_precisions() else "allow_tf32 = False"
            raise UnsupportedError(
                "PyTorch may round float32 to TensorFloat-32; forbid it with: "
                f"torch.backends.cuda.matmul.{switch}"
            )
    elif array.dtype in WIDENED and _rounds_here("matmul"):
        switch = "torch.backends.mkldnn.matmul.fp32_precision = 'ieee'"
        if not _has_precisions():
            switch = "torch.set_float32_matmul_precision('highest')"
        raise UnsupportedError(f"PyTorch may round float32 to bfloat16; forbid it with: {switch}")


@cache
def _has_precisions() -> bool:
    """Whether PyTorch has ``fp32_precision``, from 2.9 on."""
    return hasattr(torch.backends.cudnn, "conv")


def _rounds_on_gpu(kind: str) -> bool:
    if not _has_precisions():
        older = torch.backends.cudnn if kind == "conv" else torch.backends.cuda.matmul
        return bool(older.allow_tf32)
    switch = torch.backends.cudnn.conv if kind == "conv" else torch.backends.cuda.matmul
    # `allow_tf32` sets this, too. It cannot be read itself once this one has been set.
    return switch.fp32_precision not in ("none", "ieee")


def _rounds_here(kind: str) -> bool:
    """Whether oneDNN may round on this CPU; it does not have TensorFloat-32."""
    return _allowed("mkldnn", kind) == "bf16" and _has_bfloat16()


def _before_it_was_a_setting(backend: str, kind: str) -> str:
    medium = kind == "matmul" and torch.get_float32_matmul_precision() == "medium"
    return "bf16" if medium else "none"


# The same as `torch.backends.mkldnn.matmul.fp32_precision`, in a fortieth of the time.
_allowed = getattr(torch._C, "_get_fp32_precision_getter", _before_it_was_a_setting)


@cache
def _has_bfloat16() -> bool:
    tracing = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)  # `torch.jit.trace` cannot record an operation that is a bool
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    finally:
        torch._C._set_tracing_state(tracing)
