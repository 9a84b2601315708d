"""Whether something other than plain eager autograd watches operations on tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

# Set while autograd computes batched gradients (``is_grads_batched``), which uses an older vmap
# than ``torch.func``.
BATCHED_GRADIENTS = torch._C._dispatch_key_parse("VmapMode")

# Before PyTorch 2.7 an export cannot be told from a compilation: it is taken for one.
is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)

PLAIN = {Tensor, torch.nn.Parameter, type(None)}
"""Types of the operands of a plain call; None for a bias that is not there."""


def is_only_compiled() -> bool:
    """Whether a compiler, and no other transform, traces this call."""
    return (
        torch.compiler.is_compiling()
        and not is_exporting()
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._dispatch_tls_is_dispatch_key_included(BATCHED_GRADIENTS)
        and forward_ad._current_level < 0
    )


def is_transformed(*arrays: Tensor) -> bool:
    """Whether a compiler, a transform, a dispatch mode or a tensor subclass sees the operations.

    *arrays* are the operands.
    """
    return (
        torch.compiler.is_compiling()
        or forward_ad._current_level >= 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._dispatch_tls_is_dispatch_key_included(BATCHED_GRADIENTS)
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._is_tracing()
        or not PLAIN.issuperset(map(type, arrays))
    )
