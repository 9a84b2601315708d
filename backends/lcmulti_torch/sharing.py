"""`ShareEvery`: move the weights of positions towards each other during training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from lcmulti.errors import ArgumentError, ArgumentTypeError
from lcmulti.geometry.arguments import integer
from lcmulti.untying import Where, chosen, strength_of
from lcmulti_torch.base import LocallyConnectedNd

__all__ = ["ShareEvery"]


class ShareEvery:
    """Every *steps* steps, move the weights of each layer towards their mean over positions.

    Dynamic weight sharing (Pogodin, Mehta, Lillicrap and Latham, "Towards biologically plausible
    convolutional networks", NeurIPS 2021): locally connected layers that share their weights from
    time to time become similar to convolutions.

    Parameters
    ----------
    model : torch.nn.Module
        A model with locally connected layers, which may be transposed.
    steps : int
        The weights are moved at every *steps*-th call of `step`.
    axes : tuple of int, optional
        Spatial axes to average along; None takes all.
    strength : float, default 1.0
        How far the weights move: 1 is all the way to the mean.
    where : str, type, callable or a list of these, optional
        Which layers; as for `untie`.

    Examples
    --------
    >>> sharing = ShareEvery(model, steps=10, strength=0.5)
    >>> for x, y in batches:
    ...     loss(model(x), y).backward()
    ...     optimizer.step()
    ...     sharing.step()
    """

    def __init__(
        self,
        model: nn.Module,
        steps: int,
        axes: Sequence[int] | None = None,
        strength: float = 1.0,
        where: Where = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ArgumentTypeError("model", "a torch.nn.Module", model)
        self.steps, self.axes = integer("steps", steps, 1), axes
        self.strength = strength_of(strength)
        there = [(n, m) for n, m in model.named_modules() if isinstance(m, LocallyConnectedNd)]
        self.layers = [layer for _, layer in chosen(where, there)]
        if not self.layers:
            raise ArgumentError("model", "a network with locally connected layers", model)
        for layer in self.layers:
            layer.spec.axes_to_average(axes)  # wrong axes raise before training
        self.count = 0

    @torch.no_grad()
    def step(self) -> bool:
        """Count one step, after that of the optimizer. Return whether weights were moved."""
        self.count += 1
        if self.count % self.steps:
            return False
        moved: set[nn.Parameter] = set()
        for layer in self.layers:
            kept = [(each, each.clone()) for each in layer.parameters() if self.strength < 1]
            layer.share_(self.axes)
            for parameter, before in kept:
                # What another layer has too was moved already.
                stay = 1.0 if parameter in moved else 1 - self.strength
                parameter.lerp_(before, stay)
                moved.add(parameter)
        return True

    def state_dict(self) -> dict[str, int]:
        """The number of steps so far."""
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from the number of steps in *state*."""
        self.count = integer("count", state["count"], 0)
