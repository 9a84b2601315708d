"""The metadata of a file of weights, and the checks that it describes the file's tensors.

A file holds one layer or several. A layer has a name, which may be empty. Its tensors are
``kernel`` and ``bias``. Its metadata are ``operation`` and ``spec``, the geometry in JSON. If the
layer has a name, each of these four begins with the name and a dot.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lcmulti.errors import ArgumentTypeError
from lcmulti.geometry.spec import LocalConvSpec

__all__ = [
    "FORMAT", "STORED", "TENSORS", "VERSION", "FormatError", "check_geometry", "check_names",
    "described_by", "layers_of", "metadata_of", "prefix_of",
]  # fmt: skip

FORMAT = "lcmulti.weights"
VERSION = 1
"""Version of the format. A reader refuses versions it does not know."""

TENSORS = ("kernel", "bias")
OPERATIONS = ("local_conv", "local_conv_transpose")
STORED = {
    "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "C64": "complex64",
}  # fmt: skip
GEOMETRY = (
    "input_shape", "filters", "kernel_size", "strides", "padding", "padding_mode", "dilation",
    "groups", "data_format", "shared_axes",
)  # fmt: skip


class FormatError(Exception):
    """What a file was expected to hold, and what it holds."""


def prefix_of(layer: str) -> str:
    """The beginning of the names of a layer's tensors and metadata."""
    return f"{layer}." if layer else ""


def layers_of(metadata: Mapping[str, str]) -> list[str]:
    """Names of the layers in a file; `save_weights` writes one with an empty name."""
    found = [name.rpartition(".") for name in metadata]
    return sorted(layer for layer, _, field in found if field == "spec")


def metadata_of(layer: str, spec: LocalConvSpec, transposed: bool) -> dict[str, str]:
    """The metadata of one layer."""
    geometry = {name: getattr(spec, name) for name in GEOMETRY}
    prefix = prefix_of(layer)
    return {f"{prefix}operation": OPERATIONS[transposed], f"{prefix}spec": json.dumps(geometry)}


def check_names(tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Check that the file has this format, a kernel for each layer, and no other tensors."""
    if metadata.get("format") != FORMAT:
        raise FormatError(
            f"metadata with format {FORMAT!r}, as lcmulti.save_weights writes",
            f"{metadata.get('format')!r}",
        )
    if metadata.get("version") != str(VERSION):
        raise FormatError(f"version {VERSION} of {FORMAT}", f"{metadata.get('version')!r}")
    layers = layers_of(metadata)
    if not layers:
        raise FormatError("the geometry of a layer in 'spec'", "none")
    kernels, biases = ({f"{prefix_of(each)}{name}" for each in layers} for name in TENSORS)
    if not kernels <= set(tensors) <= kernels | biases:
        expected, perhaps, found = (", ".join(sorted(e)) for e in (kernels, biases, tensors))
        raise FormatError(f"tensors {expected:.200} and perhaps {perhaps:.200}",
                          f"{found:.200}" or "none")  # fmt: skip


def described_by(metadata: Mapping[str, str], prefix: str) -> tuple[LocalConvSpec, bool]:
    """The geometry and the operation of a layer, from its metadata."""
    operation = metadata.get(f"{prefix}operation")
    if operation not in OPERATIONS:
        raise FormatError(f"operation {' or '.join(OPERATIONS)}", f"{operation!r}")
    try:
        fields = json.loads(metadata.get(f"{prefix}spec", ""))
        if not isinstance(fields, dict) or set(fields) != set(GEOMETRY):
            raise ValueError(f"expected the fields {', '.join(GEOMETRY)}")
        spec = LocalConvSpec(fields.pop("input_shape"), fields.pop("filters"), **fields)
    except (ValueError, RecursionError, ArgumentTypeError) as error:
        raise FormatError("a geometry in 'spec'", str(error)) from error
    return spec, operation == OPERATIONS[True]


def check_geometry(found: LocalConvSpec, spec: LocalConvSpec) -> None:
    """Raise, showing both geometries, unless weights are for *spec* in one of the data formats."""
    theirs, ours = _fields(found), _fields(spec)
    if theirs != ours:
        shown = _shown(ours, theirs), _shown(theirs, ours)
        raise FormatError(*(f"weights for {each}" for each in shown))


def _fields(spec: LocalConvSpec) -> dict[str, Any]:
    names = ("input_size", "in_channels", *GEOMETRY[1:-2], "shared_axes")
    return {name: getattr(spec, name) for name in names}


def _shown(fields: dict[str, Any], others: dict[str, Any]) -> str:
    """The main fields of a geometry, and all fields in which it differs from another one."""
    told = ("input_size", "in_channels", "filters", "kernel_size", "strides")
    return ", ".join(
        f"{name}={value!r}"
        for name, value in fields.items()
        if name in told or value != others[name]
    )
