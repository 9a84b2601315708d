"""`retie` makes the locally connected layers of a Keras model convolutions again."""

from __future__ import annotations

from typing import Any, TypeVar

import keras

from lcmulti.errors import described
from lcmulti.untying import Where, chosen_to_retie
from lcmulti_keras.base import LocallyConnectedBase
from lcmulti_keras.cloning import cloned, compile_as, named, require_graph
from lcmulti_keras.conversion import convolution_for, fill, mean_weights

__all__ = ["retie"]


Model = TypeVar("Model", bound=keras.Model)


def retie(model: Model, *, where: Where = None, tolerance: float | None = 0.0) -> Model:
    """A copy of *model* in which the locally connected layers are convolutions again.

    Parameters
    ----------
    model : keras.Model
    where : str, type, callable or a list of these, optional
        Which layers; as for `untie`.
    tolerance : float or None, default 0
        Largest difference of a weight between two positions. None takes the mean over positions,
        however much they differ.

    Returns
    -------
    keras.Model
        The copy. Layers keep their names. It is compiled as `untie` says; *model* is not changed.

    Raises
    ------
    ArgumentError
        If weights differ more (the message names the layer and the difference), or if no
        convolution of Keras has the padding of a layer.
    """
    require_graph(model)
    there = [(n, each) for n, each in named(model) if isinstance(each, LocallyConnectedBase)]
    take = chosen_to_retie(where, there, described(model.name))
    means = {id(layer): mean_weights(layer, tolerance, f"{name}.") for name, layer in take}

    def filled(old: Any, new: Any) -> None:
        fill(new, *means[id(old)])

    copy = cloned(model, means, convolution_for, filled)
    compile_as(model, copy)
    return copy
