"""Find locally connected layers in a file: of lcmulti, a Keras model, or a PyTorch state dict."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lcmulti.errors import FileError, MissingExtraError
from lcmulti.files import opened_file
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.types import Array

__all__ = ["Found", "layers_in"]

KERAS, STATES = (".keras", ".h5", ".hdf5"), (".pt", ".pth", ".bin", ".npz")
KNOWN = (".safetensors", *KERAS, *STATES)


class Found(NamedTuple):
    """One layer in a file.

    Parameters
    ----------
    name : str
        Empty for a file of one layer that has no name.
    kernel : ndarray
        ``(*positions, *window, channels, filters)``.
    spec : LocalConvSpec or None
        None where the file does not contain it.
    transposed : bool
        Whether the layer is transposed, so that *spec* is that of its adjoint.
    """

    name: str
    kernel: Any
    spec: LocalConvSpec | None
    transposed: bool


def layers_in(path: Path) -> list[Found]:
    """The layers in a file. The suffix of its name tells the kind of file.

    Raises
    ------
    FileError
        If the kind of file is unknown, or the file cannot be read or has no such layer.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise FileError(path, "is not a file")
    if suffix == ".safetensors":
        found = _safetensors(path)
    elif suffix in KERAS:
        found = _keras(path)
    elif suffix in STATES:
        found = _state(path, _torch(path) if suffix != ".npz" else _arrays(path))
    else:
        raise FileError(path, f"has a name that ends in none of {', '.join(KNOWN)}")
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
            if not names:  # a state dict of PyTorch that was saved as safetensors
                arrays = {
                    name: stored.read(name, tuple(slice(0, n) for n in each.shape))
                    for name, each in stored.tensors.items()
                }
                return _state(path, arrays)
    except FormatError as error:
        expected, received = error.args
        raise FileError(path, f"is refused: expected {expected}, got {received}") from error
    found = []
    for name in names:
        weights = load_weights(path, layer=name)
        found.append(Found(name, weights.kernel, weights.spec, weights.transposed))
    return found


def _keras(path: Path) -> list[Found]:
    from lcmulti_keras.reading import layers_of  # its errors say what to install

    return [Found(*each) for each in layers_of(path)]


def _torch(path: Path) -> dict[str, Any]:
    try:
        from lcmulti_torch.reading import state_of
    except ImportError as error:
        raise MissingExtraError(
            f"{path} needs PyTorch; install it with: pip install 'lcmulti[torch]'"
        ) from error
    state: dict[str, Any] = state_of(path)
    return state


def _arrays(path: Path) -> dict[str, Any]:
    try:
        with opened_file(path) as stream, np.load(stream, allow_pickle=False) as archive:
            # Texts and dates are no weights.
            return {name: each for name, each in archive.items() if each.dtype.kind in "biufc"}
    except FileError:
        raise
    except Exception as error:  # NumPy, zipfile and zlib raise errors of many kinds
        # NumPy goes on to advise loading the file unsafely.
        why = str(error).partition(". ")[0]
        raise FileError(path, f"is not an archive of arrays ({why})") from error


def _state(path: Path, state: dict[str, Any]) -> list[Found]:
    """Find layers by the shapes of their weights, which differ from those of convolutions."""
    found = []
    for name, value in state.items():
        layer, _, label = name.rpartition(".")
        prefix = f"{layer}." if layer else ""
        if label in ("weight", "kernel") and _is_kernel(value, state.get(f"{prefix}bias")):
            found.append(Found(layer, value, None, False))
        mixed = state.get(f"{prefix}coefficients")
        if label == "basis" and mixed is not None and value.ndim == 2 * mixed.ndim + 1:
            axes = mixed.ndim - 1
            if value.shape[: axes + 1] != (mixed.shape[-1], *(1,) * axes):
                shapes = f"{value.shape} and coefficients {mixed.shape}"
                raise FileError(path, f"has a basis {shapes} of another rank in {layer!r}")
            basis = value.reshape(value.shape[0], *value.shape[axes + 1 :])
            found.append(Found(layer, np.tensordot(mixed, basis, 1), None, False))
    return found


def _is_kernel(value: Array, bias: Array | None) -> bool:
    """Whether a tensor is a kernel: six or eight axes, or four with a bias for each position."""
    if value.ndim in (6, 8):
        return True
    return bool(value.ndim == 4 and bias is not None and bias.ndim == 2)
