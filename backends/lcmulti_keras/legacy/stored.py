"""The checked content of a file: arrays that are not read yet, in folders by name."""

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
        Dtype as stored; object for something else than numbers, which is never read.
    shape : tuple of int
    stream : binary file, optional
        The file, which is open as long as the archive.
    pieces : tuple
        Places of its parts in the file.
    piece : tuple of int
        Shape of each part; parts at the end of an axis may reach beyond the array.
    content : bytes
        The array itself, if it is not read from the stream.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    stream: BinaryIO | None = None
    pieces: tuple[Piece, ...] = ()
    piece: tuple[int, ...] = ()
    content: bytes | None = None

    @property
    def nbytes(self) -> int:
        """Number of bytes that the array claims."""
        return prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, key: tuple[()]) -> np.ndarray[Any, Any]:
        """Read the whole array, in the byte order of the processor.

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
        into = memoryview(array.reshape(-1).view(np.uint8).data)
        if self.stream.readinto(into) != array.nbytes:  # type: ignore[attr-defined]
            raise FileError("", "ends before an array in it does")
        return array


@dataclass(frozen=True)
class Folder:
    """A group of an HDF5 file, or the equivalent in another file.

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
        """The member at a path, or None."""
        found: Folder | FileArray | None = self
        for name in path.split("/"):
            if not isinstance(found, Folder):
                return None
            found = found.members.get(name) if name else found
        return found

    def add(self, path: str, member: Folder | FileArray) -> None:
        """Add a member at a path, and the folders of the path."""
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
    """The checked file of an old model.

    Parameters
    ----------
    config, compile_config : dict or None
        The architecture, and how the model was compiled.
    version : str
        The version of Keras that wrote it, if the file has it.
    weights : Folder or None
        The weights; None if the file has none.
    by_path : bool
        Whether weights are stored by the path of their layer (``.keras``, ``.weights.h5``), not by
        its name (``.h5``).
    has_optimizer : bool
        Whether the file has the state of an optimizer, which is not converted.
    flipped : bool
        Whether it was written with Theano, whose convolutions flip the window.
    graph : list of Node, optional
        For a TensorFlow checkpoint, the objects to which its arrays belonged.
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
        """A list of names from an attribute. Keras splits a long list into several attributes."""
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
