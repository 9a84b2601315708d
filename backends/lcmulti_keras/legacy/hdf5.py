"""Read an HDF5 file with a table of its content, which another process has made."""

from __future__ import annotations

import itertools
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lcmulti.errors import FileError
from lcmulti_keras.legacy.apart import MEBIBYTE, run_apart
from lcmulti_keras.legacy.stored import FileArray, Folder

__all__ = ["read_hdf5"]

MEMORY = 128 * MEBIBYTE
"""Memory of the process that lists a file: HDF5 takes several times the longest text in it."""


def read_hdf5(path: Path, stream: BinaryIO, start: int, size: int) -> Folder:
    """The groups and arrays of an HDF5 file.

    Parameters
    ----------
    path : Path
        For messages.
    stream : binary file
        An ordinary file; it must stay open while arrays are read.
    start, size : int
        The part of it that is the HDF5 file.

    Raises
    ------
    FileError
        If the file is damaged or compressed, refers to other files, or claims arrays that together
        are larger than the file.
    """
    told = {"start": start, "size": size}
    root, claimed = Folder(), 0
    for name, about in run_apart("hdf5_table.py", path, stream, told, memory=MEMORY):
        if "dtype" in about:
            stored = _stored(path, stream, start, size, about)
            claimed += stored.nbytes
            root.add(name, stored)
        elif name:
            root.add(name, Folder(attrs=about))
        else:
            root.attrs.update(about)
    if claimed > size:
        raise FileError(path, f"claims arrays of {claimed:,} bytes and has {size:,}")
    return root


def _stored(
    path: Path, stream: BinaryIO, start: int, size: int, about: dict[str, Any]
) -> FileArray:
    """An array from its entry in the table, which is checked like the file itself."""
    if not about["dtype"]:
        return FileArray(np.dtype(object), ())
    dtype, shape = np.dtype(about["dtype"]), tuple(map(int, about["shape"]))
    whole = FileArray(dtype, shape)
    if dtype.kind not in "fiub" or min(shape, default=0) < 0:
        raise FileError(path, f"has an array of dtype {dtype} and shape {shape}")
    if "content" in about or not whole.nbytes:
        return FileArray(dtype, shape, content=bytes.fromhex(about.get("content", "")))
    piece = tuple(map(int, about.get("chunk", shape)))
    listed = about.get("chunks", [[[0] * len(shape), about.get("at", -1)]])
    pieces = tuple((tuple(map(int, where)), start + int(at)) for where, at in listed)
    length = prod(piece) * dtype.itemsize
    corners = itertools.product(*(range(0, n, m) for n, m in zip(shape, piece, strict=True)))
    if len(piece) != len(shape) or min(piece, default=1) < 1 or len(pieces) * length > size:
        raise FileError(path, f"has an array in pieces of shape {piece}")
    if sorted(each for each, _ in pieces) != list(itertools.islice(corners, len(pieces) + 1)):
        raise FileError(path, "lacks a part of an array")
    if any(not start <= at <= start + size - length for _, at in pieces):
        raise FileError(path, "has an array that reaches beyond its end")
    return FileArray(dtype, shape, stream, pieces, piece)
