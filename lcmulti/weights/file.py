"""Weights in a file: safetensors, with the geometry and a version in its metadata.

Requirements this module is written to:

* A file is a stranger's until it is checked: nothing in it is executed, nothing larger than the
  file is allocated, and whatever is wrong is one `FileError` that names the path.
* Who opens the file with safetensors alone finds the tensors ``kernel`` and ``bias``, or of each
  of several layers ``NAME.kernel`` and ``NAME.bias``, and can read the metadata, which is JSON.
* Saving replaces the file whole or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lcmulti import plugins
from lcmulti.choosing import framework
from lcmulti.errors import (
    ArgumentError,
    ArgumentTypeError,
    DtypeError,
    FileError,
    ShapeError,
    described,
)
from lcmulti.geometry.arguments import choice
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.weights.format import (
    FORMAT,
    STORED,
    TENSORS,
    VERSION,
    FormatError,
    check_geometry,
    check_names,
    described_by,
    layers_of,
    metadata_of,
    prefix_of,
    read,
    safetensors_of_numpy,
)

__all__ = ["VERSION", "Weights", "load_weights", "save_layers", "save_weights"]


class Weights(NamedTuple):
    """What `load_weights` returns.

    Parameters
    ----------
    kernel : array
        ``spec.kernel_shape``.
    bias : array or None
        ``spec.bias_shape``, or 1 where shared; for a transposed operation
        ``(*spec.input_size, spec.in_channels)``.
    spec : LocalConvSpec
        Of a transposed operation: that of the operation it is the adjoint of.
    transposed : bool
    """

    kernel: Any
    bias: Any
    spec: LocalConvSpec
    transposed: bool


def save_weights(
    path: str | os.PathLike[str],
    kernel: Any,
    bias: Any = None,
    *,
    spec: LocalConvSpec,
    transposed: bool = False,
) -> None:
    """Write a kernel and a bias of any framework, with their geometry, to a safetensors file.

    Parameters
    ----------
    path : path-like
        Replaced if it exists, and left as it was if anything fails.
    kernel : array
        ``spec.kernel_shape``.
    bias : array, optional
        ``spec.bias_shape``, or 1 where shared. Transposed: of the spec's input.
    spec : LocalConvSpec
    transposed : bool, default False
        Whether the weights are those of `local_conv_transpose`.

    Raises
    ------
    ShapeError
        If an array does not fit *spec*.
    DtypeError
        For complex128, which safetensors does not have.
    FileError
        If the file cannot be written.
    MissingExtraError
        If safetensors is not installed.
    """
    save_layers(path, {"": Weights(kernel, bias, spec, transposed)})


def save_layers(path: str | os.PathLike[str], layers: Mapping[str, Weights]) -> None:
    """Write the weights of several layers to one file, as `save_weights` does those of one.

    Parameters
    ----------
    path : path-like
    layers : mapping of str to Weights
        By the names `load_weights` is to find them under.

    Raises
    ------
    ShapeError, DtypeError, FileError, MissingExtraError
        As `save_weights`.
    """
    numpy = safetensors_of_numpy().numpy
    tensors, metadata = {}, {"format": FORMAT, "version": str(VERSION)}
    for layer, weights in layers.items():
        prefix, spec = prefix_of(layer), weights.spec
        if not isinstance(spec, LocalConvSpec):
            raise ArgumentTypeError("spec", "a LocalConvSpec", spec)
        arrays = {"kernel": _as_numpy("kernel", weights.kernel)}
        if weights.bias is not None:
            arrays["bias"] = _as_numpy("bias", weights.bias)
        for name, array in arrays.items():
            if array.dtype.name not in STORED.values():
                raise DtypeError(name, f"dtype {', '.join(STORED.values())}", array.dtype.name)
            tensors[f"{prefix}{name}"] = np.ascontiguousarray(array)
        _check_shapes({n: a.shape for n, a in arrays.items()}, spec, weights.transposed)
        metadata |= metadata_of(layer, spec, weights.transposed)
    _replace(Path(path), numpy.save(tensors, metadata))


def _replace(target: Path, content: bytes) -> None:
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(target)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise FileError(target, f"cannot be written ({error.strerror or error})") from error


def load_weights(
    path: str | os.PathLike[str],
    spec: LocalConvSpec | None = None,
    *,
    layer: str | None = None,
    backend: str | None = None,
) -> Weights:
    """Read what `save_weights` or ``lcmulti convert --safetensors`` wrote.

    Parameters
    ----------
    path : path-like
    spec : LocalConvSpec, optional
        The geometry the weights are for; another one in the file is an error. Only the data
        format may differ, for weights are the same in both.
    layer : str, optional
        Whose weights, of a file that holds several layers'.
    backend : str, optional
        Whose arrays to return; None returns NumPy's.

    Returns
    -------
    Weights
        ``(kernel, bias, spec, transposed)``, ``spec`` the given one or that of the file.

    Raises
    ------
    FileError
        If the file cannot be read, is not of this format, holds what it should not, or is of
        another geometry than *spec*, with both; the path is named.
    ArgumentError
        If the file has no such *layer*, or several and none is named.
    """
    path = Path(path)
    try:
        tensors, metadata = read(path)
        check_names(tensors, metadata)
        prefix = prefix_of(_chosen(path, metadata, layer))
        found, transposed = described_by(metadata, prefix)
        if spec is not None:
            check_geometry(found, spec)
        arrays = {n: tensors[f"{prefix}{n}"] for n in TENSORS if f"{prefix}{n}" in tensors}
        try:
            _check_shapes({n: a.shape for n, a in arrays.items()}, found, transposed)
        except ShapeError as error:
            raise FormatError(f"a {error.argument} of {error.expected}", error.received) from None
    except FormatError as error:
        expected, received = error.args
        raise FileError(
            path, f"is refused: expected {expected}, got {received}"
        ) from error.__cause__
    kernel, bias = arrays["kernel"], arrays.get("bias")
    if backend is not None:
        owner = plugins.load_backend(choice("backend", backend, plugins.registry().backends))
        kernel = owner.from_numpy(kernel)
        bias = None if bias is None else owner.from_numpy(bias)
    return Weights(kernel, bias, found if spec is None else spec, transposed)


def _as_numpy(argument: str, array: Any) -> np.ndarray[Any, Any]:
    name, neutral = framework.backend_of((type(array),), None, names=(argument,))
    result: np.ndarray[Any, Any]
    if neutral:
        result = np.asarray(array)
        return result.astype(result.dtype.newbyteorder("="), copy=False)
    owner = plugins.load_backend(name)
    result = owner.to_numpy(owner.prepare((array, None, None))[0])
    return result


def _bias_shape(spec: LocalConvSpec, transposed: bool) -> tuple[int, ...]:
    if transposed:
        return (*spec.input_size, spec.in_channels)
    return (*spec.output_size, spec.filters)


def _check_shapes(
    shapes: Mapping[str, tuple[int, ...]], spec: LocalConvSpec, transposed: bool
) -> None:
    if shapes["kernel"] != spec.kernel_shape:
        expected = f"shape {spec.kernel_shape}, that of the spec"
        raise ShapeError("kernel", expected, described(str(shapes["kernel"])))
    if "bias" not in shapes:
        return
    full, given = _bias_shape(spec, transposed), shapes["bias"]
    fits = len(given) == len(full) and given[-1] == full[-1]
    if not fits or any(n not in (1, m) for n, m in zip(given[:-1], full[:-1], strict=True)):
        raise ShapeError("bias", f"shape {full}, or 1 where shared", described(str(given)))


def _chosen(path: Path, metadata: Mapping[str, str], layer: str | None) -> str:
    names = layers_of(metadata)
    if layer in names or (layer is None and len(names) == 1):
        return names[0] if layer is None else layer
    shown = ", ".join(map(repr, names))
    raise ArgumentError("layer", f"one of the layers of {path}: {shown}", layer)
