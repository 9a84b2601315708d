"""`torch.fx`: in a traced model a layer is one node, as a convolution is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

__all__ = ["called", "is_proxy", "node"]


def is_proxy(x: Any) -> bool:
    """Whether *x* stands for a tensor while `torch.fx` traces."""
    proxy = getattr(sys.modules.get("torch.fx"), "Proxy", None)
    return proxy is not None and isinstance(x, proxy)


def called(function: Callable[..., Any], x: Any, *others: Any, **arguments: Any) -> Any:
    """The node that calls *function* of a proxy and whatever else."""
    return x.tracer.create_proxy("call_function", function, (x, *others), arguments)


def node(layer: Any, x: Any) -> Any:
    """The call of *layer*, or of its operation where the layer is all that is traced."""
    path = x.tracer.path_of_module(layer)
    if path:
        return x.tracer.create_proxy("call_module", path, (x,), {})
    operation, weights, arguments = layer._operation()
    return called(operation, x, *weights, **arguments)
