"""Call the maps as operations of `torch.library`, while PyTorch's compiler traces."""

from __future__ import annotations

from typing import Any

import torch
from lcmulti_torch.watched import BATCHED_GRADIENTS, is_exporting
from torch import Tensor
from torch.autograd import forward_ad

from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Map, Resources

__all__ = ["is_compiled", "traced"]


def is_compiled() -> bool:
    """Whether a compiler, and no other transform, traces this call."""
    return (
        torch.compiler.is_compiling()
        and not is_exporting()
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._dispatch_tls_is_dispatch_key_included(BATCHED_GRADIENTS)
        and forward_ad._current_level < 0
    )


def traced(map_: Map, a: Tensor, b: Tensor, spec: LocalConvSpec, resources: Resources) -> Any:
    """Call the map as an operation with its own derivatives."""
    from lcmulti_triton.operations import call_of, operations

    return operations[map_](a, b, call_of(spec, resources))
