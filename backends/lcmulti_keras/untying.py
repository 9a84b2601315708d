"""`untie` makes the convolutions of a Keras model locally connected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Literal, TypeVar, Unpack, overload

import keras
import numpy as np
from keras import ops

from lcmulti.dtypes import DTYPES
from lcmulti.errors import ArgumentError, described
from lcmulti.types import Array
from lcmulti.untying import Arguments, Row, Untying, Where, chosen, planned
from lcmulti_keras.axes import moved_axes
from lcmulti_keras.cloning import (
    LAYERS,
    cloned,
    compile_as,
    named,
)
from lcmulti_keras.conversion import DEPTHWISE, TAKEN_OVER
from lcmulti_keras.sizes import sizes_seen, with_sizes

__all__ = ["untie"]

SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)


Model = TypeVar("Model", bound=keras.Model)


@overload
def untie(
    model: keras.Model,
    example_input: Any = ...,
    *,
    dry_run: Literal[True],
    **arguments: Unpack[Arguments],
) -> Untying: ...
@overload
def untie(
    model: Model,
    example_input: Any = ...,
    *,
    dry_run: Literal[False] = ...,
    **arguments: Unpack[Arguments],
) -> Model: ...
@overload
def untie(
    model: Model, example_input: Any = ..., *, dry_run: bool, **arguments: Unpack[Arguments]
) -> Model | Untying: ...
def untie(
    model: keras.Model,
    example_input: Any = None,
    *,
    where: Where = None,
    shared_axes: Sequence[int] = (),
    rank: int | None = None,
    memory: int | str | None = None,
    implementation: str = "auto",
    dry_run: bool = False,
    tell: Callable[[str], object] | None = print,
) -> keras.Model | Untying:
    """A copy of *model* with locally connected layers, which compute what its convolutions did.

    Parameters
    ----------
    model : keras.Model
        A functional or Sequential model that is built; it may have nested models. Depthwise and
        transposed convolutions are replaced too; separable ones and those in wrappers stay.
    example_input : array, optional
        A batch, for a model whose input size is open; the copy takes samples of this size.
    where : str, type, callable or a list of these, optional
        Names (``"block1_conv1"``; in a nested model, ``"encoder/conv"``), patterns, classes, or
        ``(name, layer) -> bool``. None: all that can be untied.
    shared_axes, rank, implementation
        Arguments of the new layers. The first kernel of low-rank weights is that of the
        convolution.
    memory : int or str, optional
        Largest size of the new weights (``"4GiB"``). None: the memory of this machine.
    dry_run : bool, default False
        Only return what would be done.
    tell : callable or None
        Called with a table of the parameters and memory of each layer, before anything is made.

    Returns
    -------
    keras.Model
        The copy, of the class of *model* if that is made as functional or Sequential models are.
        Layers keep their names, weights, policies and ``trainable``. It is compiled as *model* is,
        with a new optimizer; a warning says if Keras cannot copy a loss or metric of your own.
        With *dry_run*, a `lcmulti.untying.Untying`.

    Raises
    ------
    ArgumentError
        If a convolution has inputs of two sizes (the message names both), or *where* fits none.
    TooLargeError
        If the weights take more than *memory*. The message names the layers that cost most.
    """
    given, model = model, with_sizes(model, example_input)
    layers, sizes = list(named(model)), sizes_seen(model, {})
    there = [(name, layer) for name, layer in layers if isinstance(layer, (*LAYERS, *SEPARABLE))]
    arguments = {"shared_axes": shared_axes, "rank": rank, "implementation": implementation}
    left = [
        (name, f"a {type(layer.layer).__name__} within {type(layer).__name__}")
        for name, layer in layers
        if where is None and isinstance(getattr(layer, "layer", None), (*LAYERS, *SEPARABLE))
    ]
    wanted = chosen(where, there)
    seen = {name: sizes.get(id(layer), set()) for name, layer in wanted}
    for name, each in seen.items():
        if any(None in sample for sample in each):
            what, shown = "an input size, or an example_input", f"{name!r}, whose input is open"
            if within := name.rpartition("/")[0]:
                called = " and ".join(sorted(map(str, sizes[id(dict(layers)[within])])))
                what = f"one input size of the nested model {within!r}"
                shown = f"{name!r}, whose model is called on {called}"
            raise ArgumentError("model", what, described(shown))

    def row(name: str, layer: Any, sample: tuple[int, ...]) -> Row:
        return _row(name, layer, sample, _layer(layer, sample, arguments))

    plan, samples = planned(wanted, seen, where is not None, _unfit, row, left)
    if dry_run:
        return plan
    plan.announce(tell, memory)
    take = {id(layer): samples[name] for name, layer in wanted if name in samples}

    def made(layer: Any) -> Any:
        new = _layer(layer, take[id(layer)], arguments)
        if rank is None:  # the weights are written once, as they are made
            new.kernel_initializer = _everywhere(_kernel_of(layer))
        return new

    def filled(old: Any, new: Any) -> None:
        _fill(new, _kernel_of(old), old.bias)
        if not isinstance(old, DEPTHWISE):
            new.kernel_initializer = old.kernel_initializer
        else:
            new.kernel_initializer = old.depthwise_initializer

    copy = cloned(model, take, made, filled)
    compile_as(given, copy)
    return copy


def _kind(layer: Any) -> Any:
    return next((kind for kind in LAYERS if isinstance(layer, kind)), None)


def _unfit(layer: Any) -> str | None:
    """Why a convolution cannot be untied, or None."""
    kind = _kind(layer)
    if kind is None:
        return "a separable convolution is two in one"
    for name in ("call", "convolution_op"):
        if getattr(type(layer), name, None) is not getattr(kind, name, None):
            return f"{type(layer).__name__} computes something of its own in {name}"
    if getattr(layer, "lora_enabled", False):
        return "its weights are computed (LoRA); merge them first"
    if getattr(layer, "quantization_mode", None):
        return "its weights are quantized"
    return None


def _layer(conv: Any, sample: tuple[int, ...], arguments: dict[str, Any]) -> Any:
    """The layer that replaces a convolution, with weights of zeros."""
    cls, config = LAYERS[_kind(conv)], conv.get_config()

    # Our kernel has position axes before those of a convolution, so axis numbers increase by these.
    def later(axis: int) -> list[int]:
        return [axis + cls.ndim if axis >= 0 else axis]

    given = {name: config[name] for name in TAKEN_OVER if name in config}
    given["bias_constraint"] = moved_axes(config["bias_constraint"], later)
    channels = sample[-1 if config["data_format"] == "channels_last" else 0]
    if isinstance(conv, DEPTHWISE):
        given["filters"] = channels * conv.depth_multiplier
        given["groups"] = channels
        regularizer, constraint = "depthwise_regularizer", "depthwise_constraint"
    else:
        given["filters"] = conv.filters
        given["groups"] = config.get("groups", 1)
        regularizer, constraint = "kernel_regularizer", "kernel_constraint"
    if "output_padding" in config:
        given["output_padding"] = config["output_padding"]
    given["kernel_regularizer"] = config[regularizer]
    if isinstance(conv, DEPTHWISE) and config[constraint] is not None:
        what = "None on a depthwise convolution, whose axes are other ones"
        raise ArgumentError("depthwise_constraint", what, config[constraint])
    given["kernel_constraint"] = moved_axes(config[constraint], later)
    return cls.from_config(given | {"kernel_initializer": "zeros"} | arguments)


def _kernel_of(conv: Any) -> Any:
    """``(*kernel_size, channels of a group, filters)``."""
    kernel = ops.convert_to_numpy(conv.kernel)
    if isinstance(conv, DEPTHWISE):
        return kernel.reshape(*kernel.shape[:-2], 1, -1)
    return kernel


def _everywhere(kernel: Any) -> Callable[..., Any]:
    """An initialiser: the kernel at every position."""

    def initializer(shape: Any, dtype: Any = None) -> Any:
        return ops.copy(ops.broadcast_to(ops.convert_to_tensor(kernel, dtype), shape))

    return initializer


def _fill(layer: Any, kernel: Array, bias: Array) -> None:
    """Set the bias of every position, and the first of low-rank kernels, to the convolution's."""
    if layer.rank is not None:
        bound = (3 / prod(kernel.shape[:-1])) ** 0.5
        basis = keras.random.uniform(layer.basis.shape, -bound, bound, dtype=layer.basis.dtype)
        basis = ops.convert_to_numpy(basis).copy()
        basis[0] = kernel
        layer.basis.assign(basis)
        mixed = np.zeros(layer.coefficients.shape, "float32")
        mixed[..., 0] = 1
        layer.coefficients.assign(mixed)
    if bias is not None:
        bias = ops.convert_to_numpy(bias)
        layer.bias.assign(np.broadcast_to(bias, layer.bias.shape))


def _row(name: str, conv: Any, sample: tuple[int, ...], layer: Any) -> Row:
    spec = layer._geometry(layer._sample_shape((None, *sample)))
    layer.spec = spec
    after = prod(spec.kernel_shape)
    if layer.rank is not None:
        taps = prod(spec.kernel_shape[spec.ndim :])
        after = layer.rank * (taps + prod(spec.positions_shape))
    if layer.use_bias:
        after += prod(layer._bias_shape())
    itemsize = DTYPES[layer.variable_dtype].itemsize
    return Row(
        name, type(conv).__name__, tuple(layer.kernel_size), spec.positions_shape,
        conv.count_params(), after, itemsize,
    )  # fmt: skip
