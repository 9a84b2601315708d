"""Weights in a file: safetensors, with the geometry and a version in its metadata.

Requirements this module is written to:

* A file is a stranger's until it is checked: nothing in it is executed, nothing larger than the
  file is allocated, and whatever is wrong is one `ArgumentError` that names the path.
* Who opens the file with safetensors alone finds the tensors ``kernel`` and ``bias`` and can read
  the metadata, which is JSON.
* Saving replaces the file whole or not at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lcmulti import dispatch, plugins
from lcmulti.arguments import choice
from lcmulti.errors import (
    ArgumentError,
    ArgumentTypeError,
    DtypeError,
    MissingExtraError,
    ShapeError,
    described,
)
from lcmulti.settings import current
from lcmulti.spec import LocalConvSpec

__all__ = ["VERSION", "Weights", "load_weights", "save_weights"]

FORMAT = "lcmulti.weights"
VERSION = 1
"""Of the layout of the file; a reader refuses versions it does not know."""

_OPERATIONS = ("local_conv", "local_conv_transpose")
_STORED = {
    "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "C64": "complex64",
}  # fmt: skip
_GEOMETRY = (
    "input_shape", "filters", "kernel_size", "strides", "padding", "padding_mode", "dilation",
    "groups", "data_format", "shared_axes",
)  # fmt: skip


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
    MissingExtraError
        If safetensors is not installed.
    """
    numpy = _safetensors().numpy
    if not isinstance(spec, LocalConvSpec):
        raise ArgumentTypeError("spec", "a LocalConvSpec", spec)
    arrays = {"kernel": _as_numpy("kernel", kernel)}
    if bias is not None:
        arrays["bias"] = _as_numpy("bias", bias)
    for name, array in arrays.items():
        if array.dtype.name not in _STORED.values():
            raise DtypeError(name, f"dtype {', '.join(_STORED.values())}", array.dtype.name)
    _check_shapes({name: array.shape for name, array in arrays.items()}, spec, transposed)
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "operation": _OPERATIONS[transposed],
        "spec": json.dumps({name: getattr(spec, name) for name in _GEOMETRY}),
    }
    content = numpy.save({n: np.ascontiguousarray(a) for n, a in arrays.items()}, metadata)
    target = Path(path)
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(target)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise ArgumentError("path", "a file that can be written", described(str(error))) from error


def load_weights(
    path: str | os.PathLike[str],
    spec: LocalConvSpec | None = None,
    *,
    backend: str | None = None,
) -> Weights:
    """Read what `save_weights` wrote.

    Parameters
    ----------
    path : path-like
    spec : LocalConvSpec, optional
        The geometry the weights are for; another one in the file is an error. Only the data
        format may differ, for weights are the same in both.
    backend : str, optional
        Whose arrays to return; None returns NumPy's.

    Returns
    -------
    Weights
        ``(kernel, bias, spec, transposed)``, ``spec`` the given one or that of the file.

    Raises
    ------
    ArgumentError
        If the file cannot be read, is not of this format, or holds what it should not.
    ShapeError
        If its geometry is not that of *spec*, with both.
    """
    tensors, metadata = _read(Path(path))
    found, transposed = _described(metadata)
    expected = {"kernel", "bias"} if "bias" in tensors else {"kernel"}
    if set(tensors) != expected:
        raise _refused("tensors 'kernel' and perhaps 'bias'", ", ".join(sorted(tensors)) or "none")
    if spec is not None:
        _check_geometry(found, spec)
    try:
        _check_shapes({n: a.shape for n, a in tensors.items()}, found, transposed)
    except ShapeError as error:
        raise _refused(f"a {error.argument} of {error.expected}", str(error.received)) from None
    kernel, bias = tensors["kernel"], tensors.get("bias")
    if backend is not None:
        owner = plugins.load_backend(choice("backend", backend, plugins.registry().backends))
        kernel = owner.from_numpy(kernel)
        bias = None if bias is None else owner.from_numpy(bias)
    return Weights(kernel, bias, found if spec is None else spec, transposed)


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError(
            "files of weights need 'safetensors'; install it with: pip install 'lcmulti[weights]'"
        ) from error
    return safetensors


def _as_numpy(argument: str, array: Any) -> np.ndarray[Any, Any]:
    name, neutral = dispatch.backend_of((type(array),), None, current().backend, (argument,))
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


def _read(path: Path) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, str]]:
    safetensors = _safetensors()
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        content = safetensors.deserialize(path.read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        raise _refused("a readable safetensors file", str(error)) from error
    tensors = {}
    for name, tensor in content:
        if tensor["dtype"] not in _STORED:
            raise _refused(f"dtypes {', '.join(_STORED)}", f"{tensor['dtype']} in {name!r}")
        array = np.frombuffer(tensor["data"], _numpy_dtype(_STORED[tensor["dtype"]]))
        tensors[name] = array.reshape(tensor["shape"])
    return tensors, metadata


def _numpy_dtype(name: str) -> np.dtype[Any]:
    if name == "bfloat16":
        import ml_dtypes

        half: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return half
    return np.dtype(name).newbyteorder("<")


def _described(metadata: Mapping[str, str]) -> tuple[LocalConvSpec, bool]:
    """The geometry and the operation that the metadata speak of."""
    if metadata.get("format") != FORMAT:
        raise _refused(
            f"metadata with format {FORMAT!r}, as lcmulti.save_weights writes",
            f"{metadata.get('format')!r}",
        )
    if metadata.get("version") != str(VERSION):
        raise _refused(f"version {VERSION} of {FORMAT}", f"{metadata.get('version')!r}")
    if metadata.get("operation") not in _OPERATIONS:
        raise _refused(f"operation {' or '.join(_OPERATIONS)}", f"{metadata.get('operation')!r}")
    try:
        fields = json.loads(metadata["spec"])
        if not isinstance(fields, dict) or set(fields) != set(_GEOMETRY):
            raise ValueError(f"expected the fields {', '.join(_GEOMETRY)}")
        spec = LocalConvSpec(fields.pop("input_shape"), fields.pop("filters"), **fields)
    except (KeyError, ValueError, RecursionError, ArgumentTypeError) as error:
        raise _refused("a geometry in 'spec'", str(error)) from error
    return spec, metadata["operation"] == _OPERATIONS[True]


def _check_geometry(found: LocalConvSpec, spec: LocalConvSpec) -> None:
    theirs, ours = _fields(found), _fields(spec)
    if theirs != ours:
        raise ShapeError(
            "path",
            f"weights for {_shown(ours, theirs)}",
            described(f"a file of weights for {_shown(theirs, ours)}"),
        )


def _fields(spec: LocalConvSpec) -> dict[str, Any]:
    names = ("input_size", "in_channels", *_GEOMETRY[1:-2], "shared_axes")
    return {name: getattr(spec, name) for name in names}


def _shown(fields: dict[str, Any], others: dict[str, Any]) -> str:
    """What tells a geometry, and whatever in it differs from another."""
    told = ("input_size", "in_channels", "filters", "kernel_size", "strides")
    return ", ".join(
        f"{name}={value!r}"
        for name, value in fields.items()
        if name in told or value != others[name]
    )


def _refused(expected: str, received: str) -> ArgumentError:
    return ArgumentError("path", expected, described(received))
