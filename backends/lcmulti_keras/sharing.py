"""`ShareEvery`: move the weights of positions towards each other during training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from lcmulti.errors import ArgumentError, described
from lcmulti.geometry.arguments import integer
from lcmulti.untying import Where, chosen, strength_of
from lcmulti_keras.base import LocallyConnectedBase
from lcmulti_keras.cloning import named

__all__ = ["ShareEvery"]


class ShareEvery(keras.callbacks.Callback):
    """Every *steps* batches, move the weights of each layer towards their mean over positions.

    Dynamic weight sharing (Pogodin, Mehta, Lillicrap and Latham, "Towards biologically plausible
    convolutional networks", NeurIPS 2021): locally connected layers that share their weights from
    time to time become similar to convolutions.

    Parameters
    ----------
    steps : int
        The weights are moved at every *steps*-th batch.
    axes : tuple of int, optional
        Spatial axes to average along; None takes all.
    strength : float, default 1.0
        How far the weights move: 1 is all the way to the mean.
    where : str, type, callable or a list of these, optional
        Which layers; as for `untie`.

    Raises
    ------
    ArgumentError
        If an argument is not allowed; when training begins, if the model has no locally connected
        layer, or *where* names none.

    Notes
    -----
    Averages that an optimizer keeps (``use_ema``) are of the weights before they are moved. When
    Keras puts them in place of the weights, these differ between positions again.

    Examples
    --------
    >>> model.fit(x, y, callbacks=[ShareEvery(steps=10, strength=0.5)])
    """

    def __init__(
        self,
        steps: int,
        axes: Sequence[int] | None = None,
        strength: float = 1.0,
        where: Where = None,
    ) -> None:
        super().__init__()
        self.steps, self.axes = integer("steps", steps, 1), axes
        self.strength, self.where = strength_of(strength), where
        self.count, self._last = 0, -1

    def on_train_begin(self, logs: Any = None) -> None:
        """Find the layers, also those of nested models and in wrappers."""
        # The path of a layer that was built before its model does not tell the model.
        names = {id(each): name for name, each in named(self.model)}
        there = [
            (names.get(id(each), str(each.path)), each)
            for each in self.model._flatten_layers()
            if isinstance(each, LocallyConnectedBase)
        ]
        self.layers = [layer for _, layer in chosen(self.where, there)]
        if not self.layers:
            shown = described(self.model.name)
            raise ArgumentError("model", "a network with locally connected layers", shown)
        for layer in self.layers:
            if layer.built:
                layer.spec.axes_to_average(self.axes)  # wrong axes raise before training

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Count batches from 0 again."""
        self._last = -1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Share, if it is time. Keras may have run several batches at once."""
        before, self.count = self.count, self.count + batch - self._last
        self._last = batch
        if self.count // self.steps == before // self.steps:
            return
        if hasattr(self.model, "jax_state_sync"):
            # On JAX, variables do not hold the current weights until this.
            self.model.jax_state_sync()
        for layer in self.layers:
            self._share(layer)

    def _share(self, layer: Any) -> None:
        weights = layer.weights
        kept = [ops.copy(each) for each in weights] if self.strength < 1 else []
        layer.share_(self.axes)
        for each, old in zip(weights, kept, strict=False):
            each.assign(old + self.strength * (each - old))
