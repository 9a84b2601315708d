"""Find locally connected layers in a file: ours, a Keras model, or a state dict of PyTorch."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lcmulti.errors import FileError, MissingExtraError
from lcmulti.geometry.spec import LocalConvSpec

__all__ = ["Found", "layers_in"]

KERAS, STATES = (".keras", ".h5", ".hdf5"), (".pt", ".pth", ".bin", ".npz")
KNOWN = (".safetensors", *KERAS, *STATES)


class Found(NamedTuple):
    """One layer of a file.

    Parameters
    ----------
    name : str
    kernel : ndarray
        ``(*positions, *window, channels, filters)``.
    spec : LocalConvSpec or None
        None where the file does not say it.
    transposed : bool
    """

    name: str
    kernel: Any
    spec: LocalConvSpec | None
    transposed: bool


def layers_in(path: Path) -> list[Found]:
    """The layers of a file, whose kind its suffix tells.

    Raises
    ------
    FileError
        If the file is of no known kind, cannot be read, or holds no such layer.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise FileError(path, "is no file")
    if suffix == ".safetensors":
        found = _safetensors(path)
    elif suffix in KERAS:
        found = _keras(path)
    elif suffix in STATES:
        found = _state(_torch(path) if suffix != ".npz" else dict(np.load(path)))
    else:
        raise FileError(path, f"has no suffix of {', '.join(KNOWN)}")
    if not found:
        raise FileError(path, "holds no locally connected layer")
    return found


def _safetensors(path: Path) -> list[Found]:
    from lcmulti.weights.file import load_weights
    from lcmulti.weights.format import FormatError, layers_of
    from lcmulti.weights.stored import opened_weights

    try:
        with opened_weights(path) as stored:
            names = layers_of(stored.metadata)
            if not names:  # a state dict of PyTorch, saved so
                arrays = {
                    name: stored.read(name, tuple(slice(0, n) for n in each.shape))
                    for name, each in stored.tensors.items()
                }
                return _state(arrays)
    except FormatError as error:
        expected, received = error.args
        raise FileError(path, f"is refused: expected {expected}, got {received}") from error
    found = []
    for name in names:
        weights = load_weights(path, layer=name)
        found.append(Found(name, weights.kernel, weights.spec, weights.transposed))
    return found


def _keras(path: Path) -> list[Found]:
    try:
        import keras  # type: ignore[import-untyped]
        import lcmulti_keras
        from lcmulti_keras.base import LocallyConnectedBase
    except ImportError as error:
        raise MissingExtraError(
            f"{path} needs Keras; install it with: pip install 'lcmulti[keras]'"
        ) from error
    if path.suffix.lower() == ".keras" and _written_by_keras3(path):
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    else:
        model = lcmulti_keras.load_legacy_model(path)
    return [
        Found(
            each.name, keras.ops.convert_to_numpy(each.full_kernel()), each.spec,
            "Transpose" in type(each).__name__,
        )
        for each in model._flatten_layers()
        if isinstance(each, LocallyConnectedBase)
    ]  # fmt: skip


def _written_by_keras3(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            version = json.loads(archive.read("metadata.json"))["keras_version"]
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise FileError(path, f"is no .keras file ({error})") from error
    return str(version).startswith("3")


def _torch(path: Path) -> dict[str, Any]:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(
            f"{path} needs PyTorch; install it with: pip install 'lcmulti[torch]'"
        ) from error
    try:  # nothing of the file is executed
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise FileError(path, f"is no state dict that loads with weights_only ({error})") from error
    while isinstance(state, dict):
        inner = next(
            (state[k] for k in ("state_dict", "model") if isinstance(state.get(k), dict)), None
        )
        if inner is None:
            break
        state = inner
    if not isinstance(state, dict):
        raise FileError(path, "is no state dict")
    return {n: v.float().numpy() for n, v in state.items() if isinstance(v, torch.Tensor)}


def _state(state: dict[str, Any]) -> list[Found]:
    """Layers by the shapes of their weights, which no convolution has."""
    found = []
    for name, value in state.items():
        layer, _, label = name.rpartition(".")
        prefix = f"{layer}." if layer else ""
        if label in ("weight", "kernel") and _is_kernel(value, state.get(f"{prefix}bias")):
            found.append(Found(layer, value, None, False))
        mixed = state.get(f"{prefix}coefficients")
        if label == "basis" and mixed is not None and value.ndim == 2 * mixed.ndim + 1:
            axes = mixed.ndim - 1
            basis = value.reshape(value.shape[0], *value.shape[axes + 1 :])
            found.append(Found(layer, np.tensordot(mixed, basis, 1), None, False))
    return found


def _is_kernel(value: Any, bias: Any) -> bool:
    """Six and eight axes are ours alone; four are where there is a bias for each position."""
    if value.ndim in (6, 8):
        return True
    return bool(value.ndim == 4 and bias is not None and bias.ndim == 2)
