"""``lcmulti convert``: load a model, save it completely or not at all, and compare both."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np

from lcmulti.errors import FileError, MissingExtraError, printable
from lcmulti.types import Array
from lcmulti.weights.file import Weights, save_layers
from lcmulti_keras.legacy.checked_copy import write_checked
from lcmulti_keras.legacy.loading import Loaded, load
from lcmulti_keras.legacy.reading import opened
from lcmulti_keras.legacy.weights import local_layers
from lcmulti_keras.legacy.writing import Written

__all__ = ["convert", "difference", "report", "write_safetensors"]

BATCH = 2
SECONDS = 600


def convert(
    old: Path, new: Path, safetensors: Path | None = None, weights: Path | None = None
) -> Loaded:
    """Load *old* and write *new*; if *safetensors* is given, also write the weights of its layers.

    Parameters
    ----------
    old, new : Path
    safetensors : Path, optional
    weights : Path, optional
        The weights, if *old* holds only an architecture.

    Raises
    ------
    FileError
        If *old* is refused or a file cannot be written. Existing files are unchanged then.
    MissingExtraError
        If the safetensors library is not installed.
    """
    if safetensors is not None and find_spec("safetensors") is None:
        raise MissingExtraError(
            "--safetensors needs safetensors, which is not installed; "
            "install it with: pip install 'lcmulti[weights]'"
        )
    with Written([new] if safetensors is None else [new, safetensors]) as files:
        loaded = load(old, weights=weights)
        files.write(new, lambda draft: _save(loaded.model, draft))
        if safetensors is not None:
            files.write(safetensors, lambda draft: write_safetensors(loaded.model, draft))
        files.publish()
    return loaded


def _save(model: Any, draft: Path) -> None:
    model.save(draft)
    with zipfile.ZipFile(draft) as archive:  # Keras may not raise when the disk is full
        if archive.testzip() is not None:
            raise OSError("it is damaged as soon as it is written")


def write_safetensors(model: Any, path: Path) -> None:
    """Write the weights of locally connected layers by name, for `lcmulti.load_weights`."""
    found: dict[str, Weights] = {}
    for layer in local_layers(model):
        name, number = layer.name, 0
        while name in found:  # nested models may use the same names for layers
            number += 1
            name = f"{layer.name}_{number}"
        kernel, bias = (
            None if each is None else keras.ops.convert_to_numpy(each)
            for each in (layer.kernel, layer.bias)
        )
        found[name] = Weights(kernel, bias, layer.spec, transposed=False)
    save_layers(path, found)


def report(loaded: Loaded) -> dict[str, Any]:
    """A report on each layer."""
    layers = [
        {
            "layer": name,
            "class": type(layer).__name__,
            "output": _shape(layer),
            "weights": layer.count_params(),
            "stored as": loaded.stored_as.get(id(layer), ""),
        }
        for name, layer in _named_layers(loaded.model)
    ]
    return {"version": loaded.version, "layers": layers, "lost": list(loaded.lost)}


def _named_layers(model: Any, within: str = "") -> Iterator[tuple[str, Any]]:
    """Layers in order; those of a nested model or a wrapper come after it."""
    for layer in model.layers if isinstance(model, keras.Model) else [model.layer]:
        name = f"{within}{layer.name}"
        yield name, layer
        if isinstance(layer, (keras.Model, keras.layers.TimeDistributed)):
            yield from _named_layers(layer, f"{name}/")


def _shape(layer: Any) -> str:
    try:
        shapes = keras.tree.map_structure(lambda tensor: tensor.shape, layer.output)
    except AttributeError:  # a layer that is called several times has no single output
        return "several"
    return str(shapes)


def difference(old: Path, loaded: Loaded, weights: Path | None = None) -> float | str:
    """Largest difference between the outputs of both models for a random input, or why not.

    The old model runs in another process, because tf_keras and Keras 3 may need different
    frameworks. That process gets a copy of the checked content, and never *old* itself.
    """
    if find_spec("tf_keras") is None:
        return "not compared: tf_keras is not installed"
    generator = np.random.default_rng(0)
    layers = (layer for _, layer in _named_layers(loaded.model))
    indices = any(isinstance(layer, keras.layers.Embedding) for layer in layers)
    xs = [_random_input(tensor, generator, indices) for tensor in loaded.model.inputs]
    y = loaded.model.predict(xs if len(xs) > 1 else xs[0], verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        given, gave = Path(folder, "x.npz"), Path(folder, "y.npz")
        np.savez(given, *xs)
        try:
            with opened(old, weights) as archive:
                copy = write_checked(old, archive, Path(folder))
        except (FileError, OSError) as error:
            return f"not compared: {printable(getattr(error, 'reason', error))}"
        command = [sys.executable, "-c", ORIGINAL, str(copy), str(given), str(gave)]
        try:
            environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
            subprocess.run(
                command, check=True, capture_output=True, timeout=SECONDS, env=environment
            )
        except subprocess.SubprocessError as error:
            lines = (getattr(error, "stderr", None) or b"").decode("utf-8", "replace").splitlines()
            reason = lines[-1] if lines else type(error).__name__
            return f"not compared: tf_keras failed ({printable(reason, 200)})"
        with np.load(gave) as arrays:
            theirs = [arrays[name] for name in arrays.files]
    ours = [keras.ops.convert_to_numpy(each) for each in keras.tree.flatten(y)]
    return max(
        float(np.abs(np.asarray(a, "float64") - b).max()) for a, b in zip(ours, theirs, strict=True)
    )


def _random_input(tensor: Array, generator: np.random.Generator, indices: bool) -> np.ndarray:
    shape = tuple(BATCH if n is None and i == 0 else n or 8 for i, n in enumerate(tensor.shape))
    dtype = np.dtype(tensor.dtype)
    # Every table has the entries 0 and 1; Keras 2 took indices as floats.
    if indices or dtype.kind in "iub":
        return generator.integers(0, 2, shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)


ORIGINAL = """
import sys, numpy as np, tf_keras
old, given, gave = sys.argv[1:]
model = tf_keras.models.load_model(old, compile=False, safe_mode=True)
with np.load(given) as arrays:
    xs = [arrays[name] for name in arrays.files]
y = model.predict(xs if len(xs) > 1 else xs[0], verbose=0)
flat = y if isinstance(y, (list, tuple)) else list(y.values()) if isinstance(y, dict) else [y]
np.savez(gave, *[np.asarray(each, "float64") for each in flat])
"""
