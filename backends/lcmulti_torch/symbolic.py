"""`torch.fx`: in a traced model a layer or an operation is one node, as a convolution is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import lcmulti
from lcmulti.errors import UnsupportedError

__all__ = ["called", "is_proxy", "recorded"]


def is_proxy(x: Any) -> bool:
    """Whether *x* stands for a tensor while `torch.fx` traces."""
    proxy = getattr(sys.modules.get("torch.fx"), "Proxy", None)
    return proxy is not None and isinstance(x, proxy)


def called(function: Callable[..., Any], *arrays: Any, **arguments: Any) -> Any:
    """The node that calls *function*; at least one of the arrays is a proxy."""
    tracer = next(each for each in arrays if is_proxy(each)).tracer
    return tracer.create_proxy("call_function", function, arrays, arguments)


def recorded(operation: str) -> Callable[..., Any]:
    """What runs the public function *operation* of lcmulti on proxies: it makes a node that does.

    A traced model that is pickled is traced again when it is loaded. Then weights are proxies, too.
    """
    return partial(_record, operation)


def _record(operation: str, *arrays_and_arguments: Any) -> Any:
    *arrays, arguments = arrays_and_arguments
    function = getattr(lcmulti, operation)
    names = [name for name in signature(function).parameters if name != "backend"]
    if "spec" in names:
        raise UnsupportedError(
            f"torch.fx cannot trace lcmulti.{operation}, for a graph holds no LocalConvSpec; "
            "call it outside of the traced model, or in a function marked by torch.fx.wrap"
        )
    return called(function, *arrays, **dict(zip(names[len(arrays) :], arguments, strict=True)))
