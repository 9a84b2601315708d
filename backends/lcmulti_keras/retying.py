"""`retie` makes the locally connected layers of a Keras model convolutions again."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from lcmulti.errors import ArgumentError, described
from lcmulti.types import Array
from lcmulti.untying import chosen, require_same, tolerance_of
from lcmulti_keras.axes import moved_axes
from lcmulti_keras.base import LocallyConnectedBase
from lcmulti_keras.cloning import DEPTHWISE, LAYERS, TAKEN_OVER, cloned, named, require_graph

__all__ = ["retie"]


def retie(model: Any, *, where: Any = None, tolerance: float | None = 0.0) -> Any:
    """A copy of *model* in which the locally connected layers are convolutions again.

    Parameters
    ----------
    model : keras.Model
    where : as for `untie`
    tolerance : float or None, default 0
        Largest difference of a weight between two positions. None takes the mean over positions,
        however much they differ.

    Raises
    ------
    ArgumentError
        If weights differ more (the message names the layer and the difference), or if no
        convolution of Keras has the padding of a layer.
    """
    require_graph(model)
    there = [(n, each) for n, each in named(model) if isinstance(each, LocallyConnectedBase)]
    take = chosen(where, there)
    if not take:
        shown = described(model.name)
        raise ArgumentError("model", "a network with locally connected layers", shown)
    most = tolerance_of(tolerance)
    means = {id(layer): _means(name, layer, most) for name, layer in take}

    def filled(old: Any, new: Any) -> None:
        kernel, bias = means[id(old)]
        target = new.kernel
        target.assign(np.reshape(kernel, target.shape))
        if bias is not None:
            new.bias.assign(bias)

    return cloned(model, means, _convolution, filled)


def _means(name: str, layer: Any, tolerance: float | None) -> tuple[Any, Any]:
    """Kernel and bias of all positions; raise if they differ."""
    axes = tuple(range(layer.ndim))
    found: list[Array | None] = []
    for label, each in (("kernel", layer.full_kernel()), ("bias", layer.bias)):
        if each is None:
            found.append(None)
            continue
        values = ops.convert_to_numpy(each)
        apart = float((values.max(axes) - values.min(axes)).max())
        require_same(f"{name}.{label}", apart, tolerance, "retie")
        # The mean of equal numbers could be rounded.
        found.append(values.mean(axes) if apart else values[(0,) * layer.ndim])
    return found[0], found[1]


def _convolution(layer: Any) -> Any:
    """The convolution that replaces a layer, with Keras' initial weights."""
    if layer.padding not in ("valid", "same", "causal") or getattr(
        layer, "padding_mode", "zeros"
    ) not in ("zeros",):
        shown = described(f"{layer.padding!r} of {layer.name!r}")
        raise ArgumentError("padding", "'valid' or 'same', as Keras' convolutions have", shown)
    config = layer.get_config()
    given = {name: config[name] for name in TAKEN_OVER}

    def earlier(axis: int) -> list[int]:
        return [axis - layer.ndim if axis >= layer.ndim else axis]

    given["bias_constraint"] = moved_axes(config["bias_constraint"], earlier)
    if isinstance(layer, tuple(LAYERS[kind] for kind in LAYERS if "Transpose" in kind.__name__)):
        given["output_padding"] = config["output_padding"]
    elif layer.groups > 1 and layer.ndim < 3 and layer.groups == layer.spec.in_channels:
        # TensorFlow has no other grouped convolution on CPUs.
        kind = DEPTHWISE[layer.ndim - 1]
        given["depth_multiplier"] = layer.filters // layer.groups
        given["depthwise_regularizer"] = config["kernel_regularizer"]
        return kind.from_config(given)
    else:
        given["groups"] = layer.groups
    given["kernel_regularizer"] = config["kernel_regularizer"]
    given["kernel_constraint"] = moved_axes(config["kernel_constraint"], earlier)
    kind = getattr(keras.layers, layer.convolution)
    return kind.from_config(given | {"filters": layer.filters})
