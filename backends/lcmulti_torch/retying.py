"""`retie` makes the locally connected layers of any module convolutions again."""

from __future__ import annotations

from typing import TypeVar, overload

from torch import nn

from lcmulti.untying import Where, chosen_to_retie, tied
from lcmulti_torch.base import Conv, LocallyConnectedNd
from lcmulti_torch.replacing import carry_over, replaced
from lcmulti_torch.shared_weights import share_again
from lcmulti_torch.untying import LAYERS, require_module

__all__ = ["retie"]

Model = TypeVar("Model", bound=nn.Module)


@overload
def retie(
    model: LocallyConnectedNd[Conv],
    *,
    where: Where = ...,
    tolerance: float | None = ...,
    inplace: bool = ...,
) -> Conv: ...
@overload
def retie(
    model: Model, *, where: Where = ..., tolerance: float | None = ..., inplace: bool = ...
) -> Model: ...
def retie(
    model: nn.Module, *, where: Where = None, tolerance: float | None = 0.0, inplace: bool = False
) -> nn.Module:
    """Turn locally connected layers back into convolutions.

    Parameters
    ----------
    model : torch.nn.Module
    where : str, type, callable or a list of these, optional
        Which layers; as for `untie`.
    tolerance : float or None, default 0
        Largest difference of a weight between two positions. None takes the mean over positions,
        however much they differ.
    inplace : bool, default False
        Change *model* itself instead of a copy.

    Returns
    -------
    torch.nn.Module
        The copy, or with *inplace* the model itself; a convolution where *model* is a layer.

    Raises
    ------
    ArgumentError
        If weights differ more. The message names the layer and the difference.
    """
    require_module(model)
    there = [(n, m) for n, m in model.named_modules() if isinstance(m, LocallyConnectedNd)]
    take = chosen_to_retie(where, there, model)
    convolutions: dict[int, nn.Module] = {}
    made: dict[tuple[object, ...], nn.Parameter] = {}
    for name, layer in take:
        convolutions[id(layer)] = conv = tied(name, layer, tolerance)
        share_again(layer, conv, made)
        kind = next(each for each in LAYERS.values() if isinstance(layer, each))
        carry_over(layer, conv, kind(1, 1, 1, 1, device="meta"))
    return replaced(model, {id(layer): layer for _, layer in take}, convolutions, inplace)
