"""Errors for a state dict that belongs to another kind of layer, or to another geometry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.nn.parameter import is_lazy

from lcmulti.weights.initial import geometry_told

__all__ = ["of_a_convolution", "of_another_geometry"]


def of_a_convolution(layer: Any, state: Mapping[str, Any], prefix: str) -> str | None:
    """Advice for the state of a convolution; None for any other state."""
    weight = state.get(f"{prefix}weight")
    if weight is None or is_lazy(weight) or weight.dim() != layer.ndim + 2:
        return None
    conv, name = layer.convolution.__name__, type(layer).__name__.removeprefix("Lazy")
    size = "..." if layer.input_size is None else layer.input_size
    return (
        f"{prefix}weight is that of a {conv}: load it into one, and give that to "
        f"{name}.from_conv(conv, input_size={size})"
    )


def of_another_geometry(layer: Any, state: Mapping[str, Any], prefix: str) -> str | None:
    """Both geometries if they differ; None for a state with other names.

    PyTorch reports other names itself, because only it knows whether loading is strict.
    """
    own = {f"{prefix}{name}": value for name, value in layer._parameters.items()}
    (kind, ours), (given, theirs) = _told(own, prefix), _told(state, prefix)
    if given != kind or theirs == ours:
        return None
    return f"{prefix}{given} is for {theirs}; this layer is for {ours}"


def _told(state: Mapping[str, Any], prefix: str) -> tuple[str, str]:
    """The name of the weights in a state, and the geometry they are for; empty for neither."""
    for names in (("weight",), ("basis", "coefficients")):
        values = (state.get(f"{prefix}{name}") for name in names)
        found = [each for each in values if each is not None]
        if len(found) == len(names):
            return names[-1], geometry_told(*(tuple(each.shape) for each in found))
    return "", ""
