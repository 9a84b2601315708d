"""Call the maps as operations of `torch.library`, while PyTorch's compiler traces."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Map, Resources

__all__ = ["traced"]


def traced(map_: Map, a: Tensor, b: Tensor, spec: LocalConvSpec, resources: Resources) -> Any:
    """Call the map as an operation with its own derivatives."""
    from lcmulti_triton.operations import call_of, operations

    return operations[map_](a, b, call_of(spec, resources))
