"""Read tensors, or parts of them, from a file or from the files that an index lists."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np

from lcmulti.files import file_size, opened_file
from lcmulti.weights.format import STORED, FormatError
from lcmulti.weights.spread import INDEX, PARTS
from lcmulti.weights.spread import VERSION as INDEX_VERSION
from lcmulti.weights.tensors import LONGEST_HEADER, Box, Header, Tensor, read, read_header

__all__ = ["Stored", "opened_weights"]


class Stored(Protocol):
    """The content of a file of weights."""

    metadata: dict[str, str]
    tensors: dict[str, Tensor]

    def read(self, name: str, box: Box) -> np.ndarray:
        """A part of a tensor."""
        ...


@contextmanager
def opened_weights(path: Path) -> Iterator[Stored]:
    """Open a file of tensors, or an index. Replacing the file later does not affect what is read.

    Raises
    ------
    FileError
        If the file is missing or may not be read.
    FormatError
        If it is neither.
    """
    with opened_file(path) as stream:
        start = stream.read(10)
        stream.seek(0)
        if start[:1] == b"{" and int.from_bytes(start[:8], "little") > file_size(stream):
            yield _Indexed(path, _index_in(stream))
        else:
            yield _Single(stream, read_header(stream))


class _Single:
    def __init__(self, stream: BinaryIO, header: Header) -> None:
        self.metadata, self.tensors, self._stream = header.metadata, header.tensors, stream

    def read(self, name: str, box: Box) -> np.ndarray:
        return read(self._stream, self.tensors[name], box)


class _Part(NamedTuple):
    file: str
    key: str
    box: Box


class _Indexed:
    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self._folder, self._word = Path(os.path.realpath(path)).parent, content["of"]
        self.metadata = content["metadata"]
        self.tensors: dict[str, Tensor] = {}
        self._parts: dict[str, list[_Part]] = {}
        for name, entry in content["tensors"].items():
            shape = tuple(entry["shape"])
            self.tensors[name] = Tensor(entry["dtype"], shape, 0)
            self._parts[name] = [_part(each) for each in entry["parts"]]
            _require_cover(name, shape, [each.box for each in self._parts[name]])

    def read(self, name: str, box: Box) -> np.ndarray:
        tensor, found = self.tensors[name], []
        with ExitStack() as stack:
            for part in self._parts[name]:
                common = tuple(
                    slice(max(a.start, b.start), min(a.stop, b.stop))
                    for a, b in zip(box, part.box, strict=True)
                )
                if all(each.start < each.stop for each in common):
                    stream = stack.enter_context(opened_file(self._folder / part.file))
                    found.append((part, common, stream, self._checked(stream, part, tensor.dtype)))
            # Check that every needed file exists before any memory is allocated.
            whole: np.ndarray | None = None
            for part, common, stream, own in found:
                inner = _within(common, part.box)
                piece = read(stream, own, inner)
                if len(found) == 1:
                    return piece
                if whole is None:
                    whole = np.empty(tuple(each.stop - each.start for each in box), piece.dtype)
                whole[_within(common, box)] = piece
        if whole is None:
            return np.empty(tuple(max(e.stop - e.start, 0) for e in box), tensor.dtype)
        return whole

    def _checked(self, stream: BinaryIO, part: _Part, dtype: str) -> Tensor:
        header = read_header(stream)
        if header.metadata.get("format") != PARTS or header.metadata.get("of") != self._word:
            raise FormatError(f"parts of {self._word!r} in {part.file}", "those of another index")
        own = header.tensors.get(part.key)
        shape = tuple(each.stop - each.start for each in part.box)
        if own is None or own.shape != shape or own.dtype != dtype:
            told = "none" if own is None else f"{own.dtype} of shape {own.shape}"
            raise FormatError(f"{part.key!r} of {dtype} and shape {shape} in {part.file}", told)
        return own


def _within(box: Box, of: Box) -> Box:
    """*box*, relative to the start of *of*."""
    return tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, of, strict=True))


def _index_in(stream: BinaryIO) -> dict[str, Any]:
    """The content of an index, after its types are checked."""
    size = file_size(stream)
    if size > LONGEST_HEADER:
        raise FormatError("a readable safetensors file, or an index", f"{size:,} bytes of JSON")
    try:
        content: dict[str, Any] = json.loads(stream.read(LONGEST_HEADER))
        known = isinstance(content, dict) and content.get("format") == INDEX
        if not known or content.get("version") != INDEX_VERSION:
            raise ValueError(f"not version {INDEX_VERSION} of {INDEX}")
        sound = isinstance(content["of"], str) and isinstance(content["metadata"], dict)
        sound = sound and all(isinstance(v, str) for v in content["metadata"].values())
        for entry in content["tensors"].values():
            sound = sound and entry["dtype"] in STORED.values() and _is_sizes(entry["shape"])
            for part in entry["parts"]:
                name = part["file"]
                sound = sound and isinstance(part["key"], str) and Path(name).name == name
                sound = sound and _is_sizes(part["start"]) and _is_sizes(part["shape"])
                sound = sound and len(part["start"]) == len(part["shape"]) == len(entry["shape"])
        if not sound:
            raise ValueError("entries that cannot be")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FormatError("a readable safetensors file, or an index", str(error)) from error
    return content


def _is_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _part(entry: dict[str, Any]) -> _Part:
    sizes = zip(entry["start"], entry["shape"], strict=True)
    return _Part(entry["file"], entry["key"], tuple(slice(a, a + n) for a, n in sizes))


def _require_cover(name: str, shape: tuple[int, ...], boxes: list[Box]) -> None:
    """Check that every element is in exactly one part."""
    inside = all(each.stop <= n for box in boxes for each, n in zip(box, shape, strict=True))
    count = sum(prod(each.stop - each.start for each in box) for box in boxes)
    starts = np.array([[each.start for each in box] for box in boxes]).reshape(len(boxes), -1)
    stops = np.array([[each.stop for each in box] for box in boxes]).reshape(len(boxes), -1)
    apart = True
    for number in range(len(boxes)):  # each part against those after it
        low = np.maximum(starts[number + 1 :], starts[number])
        high = np.minimum(stops[number + 1 :], stops[number])
        apart = apart and not (low < high).all(axis=1).any()
    if not inside or not apart or count != prod(shape):
        raise FormatError(f"parts that make up {name!r} of shape {shape}", "others")
