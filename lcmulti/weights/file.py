"""Weights in a file: safetensors, with the geometry and a version in its metadata.

Requirements this module is written to:

* A file is not trusted: nothing in it is executed, no more memory is allocated than the file is
  large, and whatever is wrong with it is one `FileError` that names the path.
* Other readers of safetensors find the tensors ``kernel`` and ``bias`` (``NAME.kernel`` and
  ``NAME.bias`` for each of several layers), and metadata in JSON.
* Saving replaces the whole file or leaves it unchanged, also where several processes write it.
* Reading and writing take little more memory than the weights.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
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
from lcmulti.plugins.contract import Backend
from lcmulti.types import Array
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
)
from lcmulti.weights.spread import Alone, Held, save_each, save_together
from lcmulti.weights.stored import opened_weights
from lcmulti.weights.tensors import Box, header_for

__all__ = ["VERSION", "Weights", "load_weights", "save_layers", "save_weights"]


class Weights(NamedTuple):
    """What `load_weights` returns.

    Parameters
    ----------
    kernel : array
        ``spec.kernel_shape``.
    bias : array or None
        ``spec.bias_shape``, with 1 where it is shared; for a transposed operation
        ``(*spec.input_size, spec.in_channels)``.
    spec : LocalConvSpec
        For a transposed operation, the spec of the operation it is the adjoint of.
    transposed : bool
    """

    kernel: Any
    bias: Any
    spec: LocalConvSpec
    transposed: bool


def save_weights(
    path: str | os.PathLike[str],
    kernel: Array,
    bias: Array | None = None,
    *,
    spec: LocalConvSpec,
    transposed: bool = False,
    per_process: bool = False,
) -> None:
    """Write a kernel and a bias of any framework, with their geometry, to a safetensors file.

    Parameters
    ----------
    path : path-like
        Replaced if it exists; unchanged if anything fails.
    kernel : array
        ``spec.kernel_shape``.
    bias : array, optional
        ``spec.bias_shape``, with 1 where it is shared. If *transposed*, the sizes are those of the
        spec's input.
    spec : LocalConvSpec
    transposed : bool, default False
        Whether the weights are those of `local_conv_transpose`.
    per_process : bool, default False
        For arrays that several processes hold, each of which calls this function. If true, each
        process writes a file of its own beside *path*, and *path* becomes an index in JSON. If
        false, all write to one file, on a file system that they share. `load_weights` reads both,
        on any number of processes.

    Raises
    ------
    ShapeError
        If an array does not fit *spec*.
    DtypeError
        For complex128, which safetensors does not have.
    FileError
        If the file cannot be written. If one process fails, all of them raise.
    """
    layer = Weights(kernel, bias, spec, transposed)
    save_layers(path, {"": layer}, per_process=per_process)


def save_layers(
    path: str | os.PathLike[str], layers: Mapping[str, Weights], *, per_process: bool = False
) -> None:
    """Write the weights of several layers to one file; see `save_weights`.

    Parameters
    ----------
    path : path-like
    layers : mapping of str to Weights
        The weights by the name of their layer, as `load_weights` takes it.
    per_process : bool, default False

    Raises
    ------
    ShapeError, DtypeError, FileError
        As `save_weights`.
    """
    arrays: dict[str, Held] = {}
    metadata = {"format": FORMAT, "version": str(VERSION)}
    for layer, weights in layers.items():
        prefix, spec = prefix_of(layer), weights.spec
        if not isinstance(spec, LocalConvSpec):
            raise ArgumentTypeError("spec", "a LocalConvSpec", spec)
        held = {"kernel": _held("kernel", weights.kernel)}
        if weights.bias is not None:
            held["bias"] = _held("bias", weights.bias)
        _check_shapes({name: each.shape for name, each in held.items()}, spec, weights.transposed)
        arrays |= {f"{prefix}{name}": each for name, each in held.items()}
        metadata |= metadata_of(layer, spec, weights.transposed)
    header = header_for({name: (each.dtype, each.shape) for name, each in arrays.items()}, metadata)
    spread = (each.processes for each in arrays.values() if not isinstance(each.processes, Alone))
    save = save_each if per_process else save_together
    save(path, header, arrays, next(spread, Alone()))


def load_weights(
    path: str | os.PathLike[str],
    spec: LocalConvSpec | None = None,
    *,
    layer: str | None = None,
    backend: str | None = None,
    part: Callable[[str, tuple[int, ...]], tuple[slice, ...]] | None = None,
) -> Weights:
    """Read a file that `save_weights` or ``lcmulti convert --safetensors`` has written.

    Parameters
    ----------
    path : path-like
    spec : LocalConvSpec, optional
        The geometry that the weights must have. Only the data format of the file may differ,
        because the weights are the same in both formats.
    layer : str, optional
        Name of the layer to read, for a file that holds several layers.
    backend : str, optional
        Backend of the arrays to return; None returns NumPy arrays.
    part : callable, optional
        ``(name, shape) -> slices``: the part of the tensor ``"kernel"`` or ``"bias"`` to read,
        along its first axes. Nothing else is read from disk. None reads everything.

    Returns
    -------
    Weights
        ``(kernel, bias, spec, transposed)``, where ``spec`` is the given one or that of the file.

    Raises
    ------
    FileError
        If the file cannot be read, is not of this format, is damaged, or has another geometry than
        *spec* (then the message shows both). The message names the path.
    ArgumentError
        If the file has no such *layer*, or has several layers and none is named.
    """
    path, owner = Path(path), None
    if backend is not None:
        owner = plugins.load_backend(choice("backend", backend, plugins.registry().backends))
    try:
        with opened_weights(path) as stored:
            check_names(stored.tensors, stored.metadata)
            prefix = prefix_of(_chosen(path, stored.metadata, layer))
            found, transposed = described_by(stored.metadata, prefix)
            if spec is not None:
                check_geometry(found, spec)
            names = [name for name in TENSORS if f"{prefix}{name}" in stored.tensors]
            shapes = {name: stored.tensors[f"{prefix}{name}"].shape for name in names}
            try:
                _check_shapes(shapes, found, transposed)
            except ShapeError as error:
                told = f"a {error.argument} of {error.expected}"
                raise FormatError(told, error.received) from None
            arrays = {}
            for name, shape in shapes.items():
                box = _box(() if part is None else part(name, shape), shape)
                array = stored.read(f"{prefix}{name}", box)
                arrays[name] = array if owner is None else _adopted(owner, array)
    except FormatError as error:
        expected, received = error.args
        raise FileError(
            path, f"is refused: expected {expected}, got {received}"
        ) from error.__cause__
    kernel, bias = arrays["kernel"], arrays.get("bias")
    return Weights(kernel, bias, found if spec is None else spec, transposed)


def _box(slices: tuple[slice, ...], shape: tuple[int, ...]) -> Box:
    """Slices along the first axes as a box of all."""
    if len(slices) > len(shape) or any(each.step not in (None, 1) for each in slices):
        raise ArgumentError("part", f"at most {len(shape)} slices without steps", slices)
    whole = (*slices, *(slice(None) for _ in shape[len(slices) :]))
    limits = (each.indices(n)[:2] for each, n in zip(whole, shape, strict=True))
    return tuple(slice(start, max(start, stop)) for start, stop in limits)


def _adopted(owner: Backend, array: np.ndarray) -> Array:
    """An array of the backend. It may keep the memory of *array*, which nobody else uses."""
    return getattr(owner, "adopt", owner.from_numpy)(array)


def _held(argument: str, array: Array) -> Held:
    """The part of an array of any framework that this process holds."""
    name, neutral = framework.backend_of((type(array),), None, names=(argument,))
    owner = None if neutral else plugins.load_backend(name)
    (array,) = framework.read((array,), framework.readers_of((type(array),)))
    held: Held | None = getattr(owner, "held", lambda array: None)(array)
    if held is None:
        local = np.asarray(array) if owner is None else owner.to_numpy(array)
        whole = tuple(slice(0, n) for n in local.shape)
        held = Held(local.dtype.name, local.shape, [(whole, local)], Alone())
    if held.dtype not in STORED.values():
        raise DtypeError(argument, f"dtype {', '.join(STORED.values())}", held.dtype)
    return held


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
