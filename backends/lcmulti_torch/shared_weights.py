"""Parameters that several modules share stay shared when `untie` or `retie` replaces these."""

from __future__ import annotations

from typing import Any

from torch import nn

from lcmulti.untying import shared_error
from lcmulti_torch.base import LocallyConnectedNd

__all__ = ["check_shared", "share_again"]


def check_shared(
    model: nn.Module, take: list[tuple[str, Any]], layers: dict[int, LocallyConnectedNd[Any]]
) -> None:
    """Raise if weights that modules share would silently become separate.

    Parameters
    ----------
    take : list of (str, module)
        The convolutions to replace.
    layers : dict
        By the id of each convolution, its new layer, which may be on the meta device.
    """
    owners: dict[int, list[tuple[str, str, nn.Module]]] = {}
    for prefix, module in model.named_modules():
        for label, parameter in module._parameters.items():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append((prefix, label, module))
    for name, conv in take:
        for label, parameter in conv._parameters.items():
            here = _shapes(layers[id(conv)], label)
            for other, theirs, module in owners.get(id(parameter), []):
                layer = layers.get(id(module))
                if layer is None or theirs != label or _shapes(layer, label) != here:
                    raise shared_error(name, label, other)


def share_again(layer: Any, conv: Any, made: dict[tuple[object, ...], nn.Parameter]) -> None:
    """Give *conv* parameters that another one has, if their *layers* shared them.

    Parameters
    ----------
    layer, conv : torch.nn.Module
        A locally connected layer, and the convolution that replaces it.
    made : dict
        What the convolutions before have; *conv* adds its own.
    """
    for label, parameter in conv._parameters.items():
        if parameter is not None:
            of_layer = (id(layer._parameters[name]) for name in _shapes(layer, label))
            setattr(conv, label, made.setdefault((label, *of_layer), parameter))


def _shapes(layer: Any, label: str) -> dict[str, tuple[int, ...]]:
    """By name, the layer's parameters that stand for this one of a convolution."""
    shapes = layer._parameter_shapes()
    return {name: shape for name, shape in shapes.items() if (name == "bias") == (label == "bias")}
