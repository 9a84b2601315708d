"""Read and write tensors, or boxes of tensors, in a safetensors file.

The format: eight bytes with the length of a header, the header in JSON, and the tensors one after
the other (https://github.com/huggingface/safetensors, "Format"). The safetensors package reads what
this module writes, and the other way around. It is not used here because it can neither write a
part of a tensor, as processes that share a file do, nor read without mapping the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from lcmulti.files import file_size
from lcmulti.weights.format import STORED, FormatError

__all__ = ["Box", "Header", "Tensor", "header_for", "read", "read_header", "write"]

Box = tuple[slice, ...]
"""A part of a tensor: ``start`` and ``stop`` along each of its axes."""

LONGEST_HEADER = 2**24
"""Largest header that is read, in bytes; those written here have a few hundred for each layer."""

PIECE = 2**22
"""Largest number of bytes that are copied at once."""

NAMES = {name: code for code, name in STORED.items()}


class Tensor(NamedTuple):
    """One tensor of a file.

    Parameters
    ----------
    dtype : str
        Name of the NumPy dtype.
    shape : tuple of int
    start : int
        Offset of its first byte in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def whole(self) -> Box:
        """The whole tensor as a box."""
        return tuple(slice(0, n) for n in self.shape)


class Header(NamedTuple):
    """The header of a file.

    Parameters
    ----------
    tensors : dict of str to Tensor
    metadata : dict of str to str
    content : bytes
        The bytes of the header, with its length.
    size : int
        Bytes of the whole file.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    content: bytes
    size: int


def header_for(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]
) -> Header:
    """The header of a file of tensors of these dtypes and shapes."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    # Large elements first, so that each tensor is aligned to its element size.
    ordered = sorted(tensors, key=lambda name: (-_dtype(tensors[name][0]).itemsize, name))
    at, places = 0, {}
    for name in ordered:
        dtype, shape = tensors[name]
        places[name] = at
        end = at + prod(shape) * _dtype(dtype).itemsize
        entries[name] = {"dtype": NAMES[dtype], "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    found = {name: Tensor(*tensors[name], start + places[name]) for name in ordered}
    return Header(found, dict(metadata), len(text).to_bytes(8, "little") + text, start + at)


def read_header(stream: BinaryIO) -> Header:
    """Read the header of a file, and check that it can be true.

    Raises
    ------
    FormatError
        If the file is not safetensors or is incomplete, or has a dtype that weights do not have.
    """
    size = file_size(stream)
    first = stream.read(8)
    length = int.from_bytes(first, "little")
    if len(first) < 8 or length > size - 8:
        raise _unreadable(f"{size:,} bytes, of which the first say {length:,} follow")
    if length > LONGEST_HEADER:
        raise _unreadable(f"a header of {length:,} bytes")
    text = stream.read(length)
    try:
        entries = json.loads(text, object_pairs_hook=_once)
        if not isinstance(entries, dict) or not text.startswith(b"{"):
            raise ValueError("no JSON object")
        metadata = entries.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
            raise ValueError("metadata that is not text")
        ends = {name: _checked(entry) for name, entry in entries.items()}
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise _unreadable(f"a header with {error}") from error
    tensors, at = {}, 0
    for name, (code, shape, start, end) in sorted(ends.items(), key=lambda each: each[1][2:]):
        if start != at:
            raise _unreadable(f"{name!r} at byte {start:,} of the content instead of {at:,}")
        if code not in STORED:
            raise FormatError(f"dtypes {', '.join(STORED)}", f"{code} in {name!r}")
        if end - start != prod(shape) * _dtype(STORED[code]).itemsize:
            raise _unreadable(f"{end - start:,} bytes of {code} for shape {shape} in {name!r}")
        tensors[name], at = Tensor(STORED[code], shape, 8 + length + start), end
    if 8 + length + at != size:
        raise _unreadable(f"{size:,} bytes instead of {8 + length + at:,}")
    return Header(tensors, metadata, first + text, size)


def _unreadable(received: str) -> FormatError:
    return FormatError("a readable safetensors file", received)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def _checked(entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """The dtype, the shape and the offsets of one tensor."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError("a tensor without dtype, shape and data_offsets")
    shape, place = entry["shape"], entry["data_offsets"]
    if not isinstance(entry["dtype"], str) or not isinstance(shape, list) or len(shape) > 64:
        raise ValueError("a dtype or a shape that is none")
    if not isinstance(place, list) or len(place) != 2:
        raise ValueError("offsets that are not two")
    for number in (*shape, *place):
        if type(number) is not int or not 0 <= number < 2**63:
            raise ValueError("a size that cannot be")
    if place[0] > place[1]:
        raise ValueError("offsets in the wrong order")
    return entry["dtype"], tuple(shape), place[0], place[1]


def write(stream: BinaryIO, tensor: Tensor, box: Box, array: np.ndarray) -> None:
    """Write *array* to a box of a tensor. The file has its final length already."""
    dtype = _dtype(tensor.dtype)
    for at, index in _pieces(tensor, box):
        piece = np.ascontiguousarray(array[index], dtype)
        stream.seek(at)
        stream.write(_bytes(piece))


def read(stream: BinaryIO, tensor: Tensor, box: Box) -> np.ndarray:
    """Read a box of a tensor.

    Raises
    ------
    FormatError
        If the file is shorter than its header says.
    """
    array = np.empty(tuple(each.stop - each.start for each in box), _dtype(tensor.dtype))
    for at, index in _pieces(tensor, box):
        # What is contiguous in the file is contiguous in the array.
        piece = _bytes(array[index])
        stream.seek(at)
        while piece:
            count = stream.readinto(piece)  # type: ignore[attr-defined]
            if not count:
                raise _unreadable("a file that ends before its content does")
            piece = piece[count:]
    return array


def _bytes(array: np.ndarray) -> memoryview:
    """The memory of a contiguous array."""
    return memoryview(array.reshape(-1).view(np.uint8).data)


def _pieces(tensor: Tensor, box: Box) -> Iterator[tuple[int, tuple[slice | int, ...]]]:
    """Offsets in the file of the contiguous pieces of a box, and their indices in an array."""
    shape, size = tensor.shape, tuple(each.stop - each.start for each in box)
    if not prod(size):
        return
    itemsize = _dtype(tensor.dtype).itemsize
    steps = [prod(shape[axis + 1 :]) * itemsize for axis in range(len(shape))]
    if not shape:
        yield tensor.start, ()
        return
    # The first axis behind which the box is the whole tensor: its rows are contiguous in the file.
    axis = next(a for a in range(len(shape)) if size[a + 1 :] == shape[a + 1 :])
    rows = max(PIECE // steps[axis], 1)
    for index in product(*map(range, size[:axis])):
        begin = tensor.start + sum(
            (each.start + i) * step for each, i, step in zip(box, index, steps, strict=False)
        )
        for first in range(0, size[axis], rows):
            last = min(first + rows, size[axis])
            yield begin + (box[axis].start + first) * steps[axis], (*index, slice(first, last))


def _dtype(name: str) -> np.dtype:
    if name == "bfloat16":
        import ml_dtypes

        half: np.dtype = np.dtype(ml_dtypes.bfloat16)
        return half
    return np.dtype(name).newbyteorder("<")
