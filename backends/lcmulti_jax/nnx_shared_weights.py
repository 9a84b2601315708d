"""Variables of Flax NNX that several modules share stay shared in `untie` and `retie`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flax import nnx

from lcmulti.untying import shared_error
from lcmulti_jax.nnx_modules import named

__all__ = ["check_shared", "share_again"]

Shapes = Mapping[str, tuple[int, ...]]


def check_shared(model: Any, take: Mapping[str, Shapes]) -> None:
    """Raise if weights that modules share would silently become separate.

    Parameters
    ----------
    take : mapping of str to mapping
        By the names of the convolutions to replace, the shapes of the parameters of the new layers.

    Raises
    ------
    ArgumentError
    """
    owners: dict[int, list[tuple[str, str]]] = {}
    for name, module in named(model):
        for label, value in vars(module).items():
            if isinstance(value, nnx.Variable):
                owners.setdefault(id(value), []).append((name, label))
    for holders in owners.values():
        for name, label in holders:
            if name not in take:
                continue
            for other, theirs in holders:
                fits = other in take and theirs == label
                if not fits or _part(take[other], label) != _part(take[name], label):
                    raise shared_error(name, label, other)


def share_again(layer: Any, conv: Any, known: dict[tuple[object, ...], nnx.Variable[Any]]) -> None:
    """Give *conv* the variables of a convolution before, if their layers share theirs.

    Parameters
    ----------
    layer, conv : flax.nnx.Module
        A locally connected layer, and the convolution that replaces it.
    known : dict
        What the convolutions before have; *conv* adds its own.
    """
    variables = {n: v for n, v in vars(layer).items() if isinstance(v, nnx.Variable)}
    for label in ("kernel", "bias"):
        value = getattr(conv, label)
        if isinstance(value, nnx.Variable):
            ids = (id(variables[name]) for name in sorted(_part(variables, label)))
            setattr(conv, label, known.setdefault((label, *ids), value))


def _part(of_layer: Mapping[str, Any], label: str) -> dict[str, Any]:
    """The part of a layer's parameters that stands for this one of a convolution."""
    return {name: each for name, each in of_layer.items() if (name == "bias") == (label == "bias")}
