"""`untie` makes the convolutions of a Keras model locally connected; `retie` does the opposite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import keras
import numpy as np
from keras import ops

from lcmulti.dtypes import DTYPES
from lcmulti.errors import ArgumentError, ArgumentTypeError, described
from lcmulti.types import Array
from lcmulti.untying import Row, Untying, chosen
from lcmulti_keras.axes import moved_axes
from lcmulti_keras.base import LocallyConnectedBase
from lcmulti_keras.convolutions import (
    DEPTHWISE,
    TAKEN_OVER,
    convolution_for,
    fill,
    mean_weights,
)
from lcmulti_keras.layers import LocallyConnected1D, LocallyConnected2D, LocallyConnected3D
from lcmulti_keras.transposed import (
    LocallyConnected1DTranspose,
    LocallyConnected2DTranspose,
    LocallyConnected3DTranspose,
)

__all__ = ["retie", "untie"]

LAYERS = {
    getattr(keras.layers, cls.convolution): cls
    for cls in (
        LocallyConnected1D, LocallyConnected2D, LocallyConnected3D, LocallyConnected1DTranspose,
        LocallyConnected2DTranspose, LocallyConnected3DTranspose,
    )
} | {
    keras.layers.DepthwiseConv1D: LocallyConnected1D,
    keras.layers.DepthwiseConv2D: LocallyConnected2D,
}  # fmt: skip
SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)


def untie(
    model: Any,
    example_input: Any = None,
    *,
    where: Any = None,
    shared_axes: Any = (),
    rank: int | None = None,
    memory: Any = None,
    implementation: str = "auto",
    dry_run: bool = False,
    tell: Callable[[str], Any] | None = print,
) -> Any:
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
        The copy, not compiled. Layers keep their names, weights, policies and ``trainable``. With
        *dry_run*, a `lcmulti.untying.Untying`.

    Raises
    ------
    ArgumentError
        If a convolution has inputs of two sizes (the message names both), or *where* fits none.
    TooLargeError
        If the weights take more than *memory*. The message names the layers that cost most.
    """
    model = _with_sizes(model, example_input)
    named, sizes = list(_named(model)), _sizes_seen(model, {})
    there = [(name, layer) for name, layer in named if isinstance(layer, (*LAYERS, *SEPARABLE))]
    arguments = {"shared_axes": shared_axes, "rank": rank, "implementation": implementation}
    rows, left, take = [], [], {}
    for name, layer in chosen(where, there):
        why = _unfit(layer)
        if why and where is not None:
            shown = described(f"{name}: {why}")
            raise ArgumentError("where", "convolutions that can be untied", shown)
        if why:
            left.append((name, why))
            continue
        sample = _one_size(name, sizes.get(id(layer), set()))
        take[id(layer)] = sample
        rows.append(_row(name, layer, sample, arguments))
    for name, layer in named:
        inner = getattr(layer, "layer", None)
        if where is None and isinstance(inner, (*LAYERS, *SEPARABLE)):
            left.append((name, f"a {type(inner).__name__} within {type(layer).__name__}"))
    if not rows:
        shown = described(", ".join(f"{n} ({why})" for n, why in left) or model.name)
        raise ArgumentError("model", "a network with convolutions", shown)
    plan = Untying(tuple(rows), tuple(left))
    if dry_run:
        return plan
    if tell is not None:
        tell(str(plan))
    plan.require(memory)

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

    return _cloned(model, take, made, filled)


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
    _require_graph(model)
    there = [(n, each) for n, each in _named(model) if isinstance(each, LocallyConnectedBase)]
    take = chosen(where, there)
    if not take:
        shown = described(model.name)
        raise ArgumentError("model", "a network with locally connected layers", shown)
    means = {id(layer): mean_weights(layer, tolerance, "retie", f"{name}.") for name, layer in take}

    def filled(old: Any, new: Any) -> None:
        fill(new, *means[id(old)])

    return _cloned(model, means, convolution_for, filled)


def _require_graph(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise ArgumentTypeError("model", "a keras.Model", model)
    if not isinstance(model, (keras.Sequential, keras.src.models.Functional)):
        what = "a functional or Sequential model, for others keep their layers to themselves"
        raise ArgumentTypeError("model", what, described(type(model).__name__))
    if not model.built:
        shown = described(f"{model.name}, which has seen no input")
        raise ArgumentError("model", "a model that is built", shown)


def _with_sizes(model: Any, example: Any) -> Any:
    """The model; with an example, a copy with the same layers and inputs of the example's size."""
    _require_graph(model)
    if example is None:
        return model
    inputs = keras.tree.map_structure(
        lambda x: keras.Input(batch_shape=(None, *np.shape(x)[1:])), example
    )
    kept = keras.models.clone_model(model, input_tensors=inputs, clone_function=lambda layer: layer)
    kept.name = model.name
    return kept


def _named(model: Any, within: str = "") -> Iterator[tuple[str, Any]]:
    """Layers by name; those of a nested model come after it."""
    for layer in model.layers:
        name = f"{within}{layer.name}"
        yield name, layer
        if isinstance(layer, keras.Model):
            yield from _named(layer, f"{name}/")


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


def _sizes_seen(model: Any, found: dict[int, set[Any]]) -> dict[int, set[Any]]:
    """Shapes of the samples that each layer of this model is called with, by the layer's id."""
    graph = model._functional if isinstance(model, keras.Sequential) else model
    for node in (each for nodes in graph._nodes_by_depth.values() for each in nodes):
        if node.input_tensors:
            shape = tuple(node.input_tensors[0].shape[1:])
            found.setdefault(id(node.operation), set()).add(shape)
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            _sizes_seen(layer, found)
    return found


def _one_size(name: str, seen: set[Any]) -> tuple[int, ...]:
    """Shape of the input samples of a layer."""
    if len(seen) > 1:
        shown = " and ".join(map(str, sorted(seen, key=str)))
        raise ArgumentError(
            "model",
            f"convolutions that see one size ({name!r} may be left out with where=)",
            described(f"{name!r}, which is called on {shown}"),
        )
    sample: tuple[int, ...] = next(iter(seen), ())
    if None in sample or not sample:
        shown = described(f"{name!r}, which sees samples of {sample or 'no shape yet'}")
        raise ArgumentError("model", "an input size, or an example_input", shown)
    return sample


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


def _row(name: str, conv: Any, sample: tuple[int, ...], arguments: dict[str, Any]) -> Row:
    try:
        layer = _layer(conv, sample, arguments)
        spec = layer._geometry(layer._sample_shape((None, *sample)))
    except ArgumentError as error:
        raise error.about(f"{name}: {error.argument}") from None
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


def _cloned(
    model: Any, take: dict[int, Any], made: Callable[[Any], Any], fill: Callable[[Any, Any], None]
) -> Any:
    """A copy in which some layers are replaced; the others keep their weights."""
    pairs: list[tuple[Any, Any]] = []

    def clone(layer: Any) -> Any:
        new = made(layer) if id(layer) in take else layer.__class__.from_config(layer.get_config())
        pairs.append((layer, new))
        return new

    inputs = None
    # Keeps the names, because inputs may be given by name.
    if not isinstance(model, keras.Sequential):
        inputs = keras.tree.map_structure(
            lambda x: keras.Input(
                batch_shape=x.shape, dtype=x.dtype, name=x._keras_history.operation.name
            ),
            model.input,
        )
    copy = keras.models.clone_model(model, inputs, clone_function=clone, recursive=True)
    for old, new in pairs:
        if id(old) in take:
            fill(old, new)
        elif not isinstance(old, keras.Model):
            for ours, theirs in zip(new.variables, old.variables, strict=True):
                # A copy: on JAX two variables would share one array, and training donates arrays.
                ours.assign(np.array(ops.convert_to_numpy(theirs)))
    return copy
