"""Copy a Keras model with some layers replaced, and which layer replaces which."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.saving.serialization_lib import SafeModeScope

from lcmulti.errors import ArgumentError, ArgumentTypeError, described, printable
from lcmulti_keras.layers import LocallyConnected1D, LocallyConnected2D, LocallyConnected3D
from lcmulti_keras.transposed import (
    LocallyConnected1DTranspose,
    LocallyConnected2DTranspose,
    LocallyConnected3DTranspose,
)

__all__ = ["LAYERS", "cloned", "compile_as", "is_graph", "named", "not_compiled", "require_graph"]

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


def is_graph(layer: Any) -> bool:
    """Whether it is a functional or Sequential model, whose layers are known."""
    return isinstance(layer, (keras.Sequential, keras.src.models.Functional))


def require_graph(model: Any) -> None:
    """Raise unless it is a functional or Sequential model that is built."""
    if not isinstance(model, keras.Model):
        raise ArgumentTypeError("model", "a keras.Model", model)
    if not is_graph(model):
        what = "a functional or Sequential model, because others do not show their layers"
        raise ArgumentTypeError("model", what, described(type(model).__name__))
    if not model.built:
        shown = described(f"{model.name}, which has seen no input")
        raise ArgumentError("model", "a model that is built; call it on a batch once before", shown)


def named(model: Any, within: str = "") -> Iterator[tuple[str, Any]]:
    """Layers by name; those of a nested model come after it."""
    for layer in model.layers:
        name = f"{within}{layer.name}"
        yield name, layer
        if isinstance(layer, keras.Model):
            yield from named(layer, f"{name}/")


def cloned(
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
    with not_compiled(model), SafeModeScope(safe_mode=False):  # this process wrote the configs
        copy = keras.models.clone_model(model, inputs, clone_function=clone, recursive=True)
    for old, new in pairs:
        if id(old) in take:
            fill(old, new)
        elif isinstance(old, keras.layers.Layer) and not isinstance(old, keras.Model):
            for ours, theirs in zip(new.variables, old.variables, strict=True):
                # A copy: on JAX two variables would share one array, and training donates arrays.
                ours.assign(np.array(ops.convert_to_numpy(theirs)))
    return copy


@contextmanager
def not_compiled(model: Any) -> Iterator[None]:
    """Keras compiles copies of compiled models, and makes the variables of their optimizers."""
    compiled = [
        each
        for each in (model, *model._flatten_layers(include_self=False))
        if getattr(each, "compiled", False)
    ]
    for each in compiled:
        each.compiled = False
    try:
        yield
    finally:
        for each in compiled:
            each.compiled = True


def compile_as(model: Any, copy: Any) -> None:
    """Compile with the same arguments. The new optimizer has no variables before training."""
    if not model.compiled:
        return
    try:
        with SafeModeScope(safe_mode=False):
            arguments = keras.saving.deserialize_keras_object(model.get_compile_config())
    except (TypeError, ValueError) as error:
        reason = printable(error)
        warnings.warn(f"the new model is not compiled: {reason}", stacklevel=3)
    else:
        if arguments:
            copy.compile(**arguments)
