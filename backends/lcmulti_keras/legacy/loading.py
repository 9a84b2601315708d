"""`load_legacy_model` and `load_legacy_weights`: the steps, in order."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from lcmulti.errors import ArgumentTypeError, FileError
from lcmulti.files import as_path
from lcmulti_keras.legacy import weights as old_weights
from lcmulti_keras.legacy.building import Builder
from lcmulti_keras.legacy.compiling import compile_as
from lcmulti_keras.legacy.counting import count_compiling, count_layers, count_states
from lcmulti_keras.legacy.origins import Origins
from lcmulti_keras.legacy.partial import LoadedWeights
from lcmulti_keras.legacy.reading import Archive, opened
from lcmulti_keras.legacy.structure import is_graph

__all__ = ["Loaded", "LoadedWeights", "load", "load_legacy_model", "load_legacy_weights"]


@dataclass(frozen=True)
class Loaded:
    """A loaded model, and notes on how it was stored.

    Parameters
    ----------
    model : keras.Model
    version : str
        The version of Keras that wrote the file.
    stored_as : dict of int to str
        The layout each locally connected layer's kernel was stored in, by ``id`` of the layer.
    lost : tuple of str
        What could not be converted.
    """

    model: Any
    version: str
    stored_as: dict[int, str]
    lost: tuple[str, ...]


def load_legacy_model(
    path: Any,
    *,
    weights: Any = None,
    custom_objects: dict[str, Any] | None = None,
    compile: bool = True,
) -> keras.Model:
    """Load a model that Keras 2 or tf_keras wrote, on whichever backend Keras 3 runs.

    The file is not trusted: none of its code runs, and only Keras' own classes are built. The
    ``same`` padding of Keras 2 becomes ``keras_same``. Its ``hard_sigmoid``, which is another
    function in Keras 3, becomes a function of lcmulti_keras. The model can be saved as a plain
    ``.keras`` file, which can be loaded wherever lcmulti_keras is imported.

    Parameters
    ----------
    path : path-like
        A ``.h5`` (``.hdf5``) or ``.keras`` file, the ``model.json`` of a TensorFlow.js layers
        model, or the output of ``model.to_json()``. Its content decides, not its name.
    weights : path-like, optional
        For the output of ``model.to_json()``: the file with its weights, as for
        `load_legacy_weights`.
    custom_objects : dict, optional
        Your own classes and functions, by their names in the file. They are trusted.
    compile : bool, default True
        Compile the model as before, if its optimizer, loss and metrics are Keras' own.

    Returns
    -------
    keras.Model

    Warns
    -----
    UserWarning
        Once, with a list of what could not be converted (the optimizer's state, a custom loss).

    Raises
    ------
    FileError
        If the file is damaged or not safe, or if Keras 3 has no counterpart of one of its layers.
    """
    loaded = load(path, custom_objects=custom_objects, compile=compile, weights=weights)
    if loaded.lost:
        warnings.warn(f"{path}: not carried over: {', '.join(loaded.lost)}", stacklevel=2)
    return loaded.model


def load_legacy_weights(
    model: keras.Model, path: Any, *, by_name: bool = False, skip_mismatch: bool = False
) -> LoadedWeights:
    """Load weights that Keras 2 or tf_keras wrote, into a model of the same architecture.

    Locally connected layers must be those of lcmulti_keras, with ``padding="keras_same"`` where the
    old one had ``"same"``. The shape of a kernel tells which implementation stored it. If names,
    structure and shapes leave more than one way to pair weights with layers, the file is refused.

    Parameters
    ----------
    model : keras.Model
        Built.
    path : path-like
        A weights file, ``.h5`` or ``.weights.h5``, a whole model's, or the ``.index`` of a
        TensorFlow checkpoint, which needs TensorFlow.
    by_name : bool, default False
        For a ``.h5`` file: take only layers whose names the model has as well, for a model without
        its head or with another one. Layers in a nested model are found by the names you gave.
    skip_mismatch : bool, default False
        Leave out layers that do not fit, instead of refusing the file.

    Returns
    -------
    LoadedWeights
        The layers that were taken, those left in the file with the reason, and the layers of the
        model that are unchanged. ``print`` shows it.

    Raises
    ------
    FileError
        As in `load_legacy_model`; also if a weight is missing or has another shape, or if nothing
        is taken. The model is unchanged then.
    """
    if not isinstance(model, keras.Model) or not model.built:
        raise ArgumentTypeError("model", "a keras.Model that is built", model)
    path = as_path("path", path)
    with opened(path) as archive:
        if archive.weights is None:
            raise FileError(path, "has an architecture only, and no weights")
        if archive.graph is not None and (by_name or skip_mismatch):
            raise FileError(path, "is a checkpoint; by_name and skip_mismatch are for .h5 files")
        if by_name or skip_mismatch:
            matches, loaded = old_weights.take(
                path, archive, model, by_name=by_name, skip_mismatch=skip_mismatch
            )
        else:
            matches = old_weights.match(path, archive, model, Origins())
            loaded = LoadedWeights(tuple(layer.name for layer in model.layers if layer.weights))
        old_weights.assign(matches, model)
    return loaded


def load(
    path: Any,
    *,
    custom_objects: dict[str, Any] | None = None,
    compile: bool = True,
    weights: Any = None,
) -> Loaded:
    """Do what `load_legacy_model` does, without a warning, and return notes as well."""
    path, custom_objects = as_path("path", path), dict(custom_objects or {})
    weights = None if weights is None else as_path("weights", weights)
    with opened(path, weights) as archive:
        if archive.config is None:
            reason = "has weights only; build its model and use load_legacy_weights(model, path)"
            raise FileError(path, reason)
        if archive.version.startswith("3."):
            raise FileError(path, "was written by Keras 3; load it with keras.models.load_model")
        if archive.weights is None:
            reason = "has an architecture only; give the file with its weights as weights="
            raise FileError(path, reason)
        count_layers(path, archive.config)
        # First without values, to check that the file has all arrays.
        origins = Origins(apart=weights is not None)
        _without_values(path, archive, custom_objects, origins.apart)
        builder, model = _built(path, archive, custom_objects, origins, with_values=True)
        matches = old_weights.match(path, archive, model, builder.origins)
        old_weights.assign(matches, model)
        lost = list(builder.lost)
        if compile and archive.compile_config:
            lost += ["the optimizer's state"] if archive.has_optimizer else []
            lost += _compiled(builder, model, archive.compile_config)
        by_kernel = {id(each.variable): each.stored_as for each in matches}
        stored_as = {
            id(layer): by_kernel[id(layer.kernel)]
            for layer in old_weights.local_layers(model)
            if layer.kernel is not None
        }
        return Loaded(model, archive.version, stored_as, tuple(lost))


def _compiled(builder: Builder, model: Any, config: Any) -> list[str]:
    """Compile as far as the file describes it sensibly; return what is lost."""
    try:
        if count_compiling(config):
            return compile_as(builder, model, config)
    except Exception:  # Keras may raise anything for an odd description; the model itself is sound
        model.compiled = False
    return ["how it was compiled"]


def _without_values(
    path: Path, archive: Archive, custom_objects: dict[str, Any], apart: bool
) -> None:
    """Build the model with variables without values, and match them with the file."""

    def build_and_match() -> None:
        with keras.StatelessScope(initialize_variables=False):
            origins = Origins(apart=apart)
            builder, model = _built(path, archive, custom_objects, origins, with_values=False)
            old_weights.match(path, archive, model, builder.origins)
            count_states(path, builder.stateful)

    # Keras has a list for each thread of variables that wait for a value, and would initialise
    # these as well. In another thread, the list, and the names that they use, disappear with it.
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(copy_context().run, build_and_match).result()


def _built(
    path: Path,
    archive: Archive,
    custom_objects: dict[str, Any],
    origins: Origins,
    *,
    with_values: bool,
) -> tuple[Builder, Any]:
    builder = Builder(path, custom_objects, with_values, origins)
    node = archive.config or {}
    try:
        # On NumPy, Keras infers a shape by a call on memory nobody wrote.
        with np.errstate(all="ignore"):
            model = builder.layer(node)
            if isinstance(model, keras.Model) and not model.built:
                shape = (node.get("build_config") or {}).get("input_shape")
                if shape is not None:
                    _build(model, tuple(builder.plain(shape)))
            builder.build_activations()
        builder.initializers.put_back()
    except FileError:
        raise
    except Exception as error:
        reason = f"has a model that cannot be built ({type(error).__name__}: {error})"
        raise FileError(path, reason) from error
    if not isinstance(model, keras.Model):
        raise FileError(path, f"holds a {type(model).__name__}, not a model")
    if not model.built:
        raise FileError(path, "has a model whose input shape it does not tell")
    return builder, model


def _build(model: keras.Model, shape: tuple[int | None, ...]) -> None:
    """Make the variables. Those of a subclassed model need a call, with tensors without values."""
    if is_graph(model):
        model.build(shape)
    else:
        model(keras.KerasTensor(shape))
