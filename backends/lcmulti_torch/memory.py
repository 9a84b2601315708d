"""How tensors lie in memory: channels last as lcmulti counts them, or channels apart."""

from __future__ import annotations

from typing import Any


def is_channels_first(array: Any) -> bool:
    """Whether ``(N, *size, channels)`` lies in memory with its channels apart."""
    apart = array.stride(1) == 1 and array.shape[-1] > 1  # with one position channels adjoin
    return apart or array.stride(-1) != 1


def laid_out_as(x: Any, y: Any) -> Any:
    """*y* in memory as *x* is, as PyTorch's convolutions do, so that people may call ``view``."""
    if not is_channels_first(x):
        return y.contiguous()
    first = y.movedim(-1, 1)
    # As it is where it can be: views of it would be undone in every backward pass.
    return y if first.is_contiguous() else first.contiguous().movedim(1, -1)
