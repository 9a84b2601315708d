"""What a file holds, once it is checked: arrays that are not read yet, in folders by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from math import prod
from typing import Any, BinaryIO

import numpy as np

from lcmulti.errors import FileError

__all__ = ["Archive", "FileArray", "Folder"]

Piece = tuple[tuple[int, ...], int]
"""Where a part of an array begins in the array, and at which byte of the file."""


@dataclass(frozen=True)
class FileArray:
    """An array in a file.

    Parameters
    ----------
    dtype : numpy.dtype
        As stored; objects for what is no array of numbers, which is never read.
    shape : tuple of int
    stream : binary file, optional
        The file, open as long as the archive is.
    pieces : tuple
        Where its parts are in the file.
    piece : tuple of int
        Shape of each part; those at the end of an axis may reach beyond the array.
    content : bytes
        The array itself where it is not to be read from the stream.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    stream: BinaryIO | None = None
    pieces: tuple[Piece, ...] = ()
    piece: tuple[int, ...] = ()
    content: bytes | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the array as it says it is."""
        return prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, key: tuple[()]) -> np.ndarray[Any, Any]:
        """The array, read whole, in the processor's byte order.

        Raises
        ------
        FileError
            If the file ends before the array does.
        """
        if self.content is not None:
            array = np.frombuffer(self.content, self.dtype).reshape(self.shape)
        elif len(self.pieces) == 1 and self.piece == self.shape:
            array = self._read(self.pieces[0][1])
        else:
            array = np.zeros(self.shape, self.dtype)
            for start, at in self.pieces:
                inside = tuple(slice(a, a + n) for a, n in zip(start, self.piece, strict=True))
                target = array[inside]
                target[...] = self._read(at)[tuple(map(slice, target.shape))]
        return array.astype(array.dtype.newbyteorder("="), copy=False)[key]

    def _read(self, at: int) -> np.ndarray[Any, Any]:
        assert self.stream is not None
        array = np.empty(self.piece, self.dtype)
        self.stream.seek(at)
        into = memoryview(array.reshape(-1).view("u1"))
        if self.stream.readinto(into) != array.nbytes:  # type: ignore[attr-defined]
            raise FileError("", "ends before an array in it does")
        return array


@dataclass(frozen=True)
class Folder:
    """A group of an HDF5 file, or what stands for one.

    Parameters
    ----------
    attrs : dict
        Texts, and lists of texts.
    members : dict
        Folders and arrays by name.
    """

    attrs: dict[str, Any] = field(default_factory=dict)
    members: dict[str, Folder | FileArray] = field(default_factory=dict)

    def get(self, path: str) -> Folder | FileArray | None:
        """What is at a path, or None."""
        found: Folder | FileArray | None = self
        for name in path.split("/"):
            if not isinstance(found, Folder):
                return None
            found = found.members.get(name) if name else found
        return found

    def add(self, path: str, member: Folder | FileArray) -> None:
        """Put a member at a path, with the folders on the way."""
        *way, name = path.split("/")
        folder = self
        for step in way:
            inner = folder.members.setdefault(step, Folder())
            assert isinstance(inner, Folder)
            folder = inner
        folder.members[name] = member

    def arrays(self, within: str = "") -> Iterator[tuple[str, FileArray]]:
        """All arrays at any depth, by path."""
        for name, member in self.members.items():
            if isinstance(member, FileArray):
                yield f"{within}{name}", member
            else:
                yield from member.arrays(f"{within}{name}/")

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)


@dataclass
class Archive:
    """An old model's file, checked.

    Parameters
    ----------
    config, compile_config : dict or None
        The architecture and how it was compiled.
    version : str
        The Keras that wrote it, as far as the file says.
    weights : Folder or None
        Where the weights are; None where the file has none.
    by_path : bool
        Whether weights are found by the path of their layer (``.keras``, ``.weights.h5``)
        rather than by its name (``.h5``).
    has_optimizer : bool
        Whether the state of an optimizer is there, which is not carried over.
    flipped : bool
        Whether it was written on Theano, whose convolutions flip the window.
    graph : list of Node, optional
        Of a TensorFlow checkpoint, the objects its arrays belonged to.
    """

    config: dict[str, Any] | None
    compile_config: dict[str, Any] | None
    version: str
    weights: Folder | None
    by_path: bool
    has_optimizer: bool
    flipped: bool = False
    graph: list[Any] | None = None

    def strings(self, group: Folder, name: str) -> list[str]:
        """A list of names from an attribute, which Keras splits into several when it is long."""
        if name in group.attrs:
            return _names(group.attrs[name], name)
        found: list[str] = []
        for part in count():
            if f"{name}{part}" not in group.attrs:
                return found
            found += _names(group.attrs[f"{name}{part}"], name)
        raise AssertionError


def _names(value: Any, name: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise FileError("", f"has {name!r} that are no names")
    return value
