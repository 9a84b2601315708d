"""Weights in a file: safetensors, with the geometry and a version in its metadata.

Requirements this module is written to:

* A file is a stranger's until it is checked: nothing in it is executed, nothing larger than the
  file is allocated, and whatever is wrong is one `FileError` that names the path.
* Who opens the file with safetensors alone finds the tensors ``kernel`` and ``bias``, or of each
  of several layers ``NAME.kernel`` and ``NAME.bias``, and can read the metadata, which is JSON.
* Saving replaces the file whole or not at all, also where several processes write it.
* Little more memory is taken than the weights are large.
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
    per_process: bool = False,
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
    per_process : bool, default False
        Of arrays that several processes hold, each of which calls this: whether each writes a
        file of its own beside *path*, which is then an index in JSON. Else all write one file, on
        a file system that they share. `load_weights` reads either, on any number of processes.

    Raises
    ------
    ShapeError
        If an array does not fit *spec*.
    DtypeError
        For complex128, which safetensors does not have.
    FileError
        If the file cannot be written; on every process, if one of them cannot.
    """
    layer = Weights(kernel, bias, spec, transposed)
    save_layers(path, {"": layer}, per_process=per_process)


def save_layers(
    path: str | os.PathLike[str], layers: Mapping[str, Weights], *, per_process: bool = False
) -> None:
    """Write the weights of several layers to one file, as `save_weights` does those of one.

    Parameters
    ----------
    path : path-like
    layers : mapping of str to Weights
        By the names `load_weights` is to find them under.
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
    part : callable, optional
        ``(name, shape) -> slices``: what of the tensor ``"kernel"`` or ``"bias"`` to read, along
        its first axes. Nothing else is read. None reads all.

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


def _adopted(owner: Any, array: np.ndarray[Any, Any]) -> Any:
    """An array of the backend that may keep the memory of *array*, which no one else has."""
    return getattr(owner, "adopt", owner.from_numpy)(array)


def _held(argument: str, array: Any) -> Held:
    """What this process has of an array of any framework."""
    name, neutral = framework.backend_of((type(array),), None, names=(argument,))
    owner = None if neutral else plugins.load_backend(name)
    held: Held | None = getattr(owner, "held", lambda array: None)(array)
    if held is None:
        if owner is None:
            local = np.asarray(array)
        else:
            local = owner.to_numpy(owner.prepare((array, None, None))[0])
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
