"""From a convolution to a locally connected layer, and back where all positions agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from lcmulti.errors import ArgumentError, ArgumentTypeError, ShapeError, described
from lcmulti.untying import require_same, tolerance_of
from lcmulti_keras.axes import moved_axes

__all__ = [
    "DEPTHWISE",
    "TAKEN_OVER",
    "conv_of_layer",
    "convolution_for",
    "fill",
    "layer_of_conv",
    "mean_weights",
]

DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
TAKEN_OVER = (
    "name", "trainable", "dtype", "kernel_size", "strides", "padding", "data_format",
    "dilation_rate", "activation", "use_bias", "bias_initializer", "bias_regularizer",
    "activity_regularizer", "bias_constraint",
)  # fmt: skip
"""Arguments that a convolution and a locally connected layer have alike."""


def layer_of_conv(
    kind: type[Any], conv: Any, input_shape: Sequence[int], changes: dict[str, Any]
) -> Any:
    """See `LocallyConnectedBase.from_conv`."""
    wanted = getattr(keras.layers, kind.convolution)
    if not isinstance(conv, wanted) or not conv.built:
        shown = described(f"{type(conv).__name__}, built: {getattr(conv, 'built', False)}")
        raise ArgumentTypeError("conv", f"a keras.layers.{wanted.__name__} that is built", shown)
    if changes.get("rank") is not None:
        raise ArgumentError("rank", "None, for a layer that starts with the weights of conv",
                            changes["rank"])  # fmt: skip

    # Our kernel has the position axes first, so that the other axes have higher numbers.
    def later(axis: int) -> list[int]:
        return [axis + kind.ndim if axis >= 0 else axis]

    config = conv.get_config()
    del config["name"]
    for each in ("kernel_constraint", "bias_constraint"):
        config[each] = moved_axes(config[each], later)
    layer = kind.from_config(config | changes)
    layer.build((None, *input_shape))
    channels = next(iter(conv.input_spec.axes.values()))
    if channels != input_shape[-1 if layer.data_format == "channels_last" else 0]:
        raise ShapeError("input_shape", f"{channels} channels, as conv takes", input_shape)
    layer.kernel.assign(ops.broadcast_to(conv.kernel, layer.kernel.shape))
    if layer.bias is not None and conv.bias is not None:
        layer.bias.assign(ops.broadcast_to(conv.bias, layer.bias.shape))
    return layer


def conv_of_layer(layer: Any, tolerance: float | None) -> Any:
    """See `LocallyConnectedBase.to_conv`."""
    if not layer.built:
        shown = described(f"{layer.name}, which has seen no input")
        raise ArgumentError("layer", "a layer that is built", shown)
    weights = mean_weights(layer, tolerance)
    conv = convolution_for(layer)
    conv.build((None, *layer._built_for))
    fill(conv, *weights)
    return conv


def fill(conv: Any, kernel: Any, bias: Any) -> None:
    """Give a convolution the weights of one position."""
    conv.kernel.assign(np.reshape(kernel, conv.kernel.shape))
    if bias is not None:
        conv.bias.assign(bias)


def mean_weights(layer: Any, tolerance: float | None, prefix: str = "") -> tuple[Any, Any]:
    """Kernel and bias, the same everywhere, or an error that says how far they differ."""
    axes, tolerance = tuple(range(layer.ndim)), tolerance_of(tolerance)
    found: list[Any] = []
    for label, each in (("kernel", layer.full_kernel()), ("bias", layer.bias)):
        if each is None:
            found.append(None)
            continue
        values = ops.convert_to_numpy(each)
        apart = float((values.max(axes) - values.min(axes)).max())
        require_same(f"{prefix}{label}", apart, tolerance)
        # The mean of equal numbers could be rounded.
        found.append(values.mean(axes) if apart else values[(0,) * layer.ndim])
    return found[0], found[1]


def convolution_for(layer: Any) -> Any:
    """The convolution in place of a layer; its weights are those that Keras starts with."""
    if layer.padding not in ("valid", "same", "causal"):
        shown = described(f"{layer.padding!r} of {layer.name!r}")
        raise ArgumentError("padding", "'valid' or 'same', as Keras' convolutions have", shown)
    mode = getattr(layer, "padding_mode", "zeros")  # a transposed layer has none
    if mode != "zeros" and layer.padding != "valid":
        shown = described(f"{mode!r} of {layer.name!r}")
        raise ArgumentError("padding_mode", "'zeros', as Keras' convolutions have", shown)
    config = layer.get_config()
    given = {name: config[name] for name in TAKEN_OVER}

    def earlier(axis: int) -> list[int]:
        return [axis - layer.ndim if axis >= layer.ndim else axis]

    given["bias_constraint"] = moved_axes(config["bias_constraint"], earlier)
    if "output_padding" in config:
        given["output_padding"] = config["output_padding"]
        if layer.groups > 1:
            raise ArgumentError("groups", "1, as Keras' transposed convolutions have", layer.groups)
    elif layer.groups > 1 and layer.ndim < 3 and layer.groups == layer.spec.in_channels:
        # TensorFlow has no other convolution in groups on the CPU.
        if config["kernel_constraint"] is not None:
            what = "None where Keras has a depthwise convolution, whose axes are other ones"
            raise ArgumentError("kernel_constraint", what, config["kernel_constraint"])
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
