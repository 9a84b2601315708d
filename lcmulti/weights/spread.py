"""Write weights that several processes hold: to one file, or to one file each and an index.

An index is a JSON file that lists which part of which tensor is in which file. The names of these
files contain a new random word each time, so that an index never refers to the files of another.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from uuid import uuid4

import numpy as np

from lcmulti.errors import FileError
from lcmulti.replacing import Replacement, mode_of, replaced
from lcmulti.weights.tensors import Box, Header, header_for, write

__all__ = ["Alone", "Held", "Processes", "save_each", "save_together"]

INDEX, PARTS = "lcmulti.weights.index", "lcmulti.weights.part"
VERSION = 1


class Processes(Protocol):
    """The processes that hold an array, and how they communicate."""

    rank: int
    """Number of this process; process 0 does what is done once for all."""

    def tell(self, text: str) -> list[str]:
        """Send a text to all processes and return all texts by rank; also a barrier."""
        ...


class Alone:
    """A single process."""

    rank = 0

    def tell(self, text: str) -> list[str]:
        """See `Processes.tell`."""
        return [text]


@dataclass(frozen=True)
class Held:
    """The part of an array that this process writes.

    Parameters
    ----------
    dtype : str
    shape : tuple of int
        Of the whole array.
    pieces : sequence of (Box, ndarray)
        The pieces in this process, without those that another process writes.
    processes : Processes
    """

    dtype: str
    shape: tuple[int, ...]
    pieces: Sequence[tuple[Box, np.ndarray]]
    processes: Processes


def save_together(
    path: str | os.PathLike[str], header: Header, arrays: Mapping[str, Held], processes: Processes
) -> None:
    """Write one file, to which each process writes its part. It is replaced whole or not at all.

    Raises
    ------
    FileError
        On every process, if one of them fails.
    """
    new = Replacement(path)
    try:
        with _agreed(path, processes):
            if not processes.rank:
                with new.create() as stream:
                    stream.write(header.content)
                    stream.truncate(header.size)
        temporary = processes.tell(str(new.temporary))[0]
        with _agreed(path, processes), Path(temporary).open("r+b") as stream:
            _write(stream, header, arrays)
        with _agreed(path, processes):
            if not processes.rank:
                new.commit()
    finally:
        if not processes.rank:
            new.discard()


def save_each(
    path: str | os.PathLike[str], header: Header, arrays: Mapping[str, Held], processes: Processes
) -> None:
    """Write one file for each process beside *path*, and an index at *path*.

    Raises
    ------
    FileError
        On every process, if one of them fails.
    """
    index = Path(os.path.realpath(path))
    word = processes.tell(uuid4().hex[:12])[0]
    name = f"{index.stem[:150]}.{word}.{processes.rank:05d}.safetensors"
    keys = {
        f"{tensor}@{number}": (tensor, box, piece)
        for tensor, held in arrays.items()
        for number, (box, piece) in enumerate(held.pieces)
    }
    shapes = {key: (header.tensors[t].dtype, piece.shape) for key, (t, _, piece) in keys.items()}
    own = header_for(shapes, {"format": PARTS, "version": str(VERSION), "of": word})
    written = index.with_name(name)
    done = False
    try:
        with _agreed(path, processes):
            mode_of(index)
            with replaced(written) as stream:
                stream.write(own.content)
                for key, (_, _, piece) in keys.items():
                    write(stream, own.tensors[key], own.tensors[key].whole, piece)
        parts = [
            {"tensor": tensor, "file": name, "key": key, "start": [each.start for each in box],
             "shape": piece.shape}
            for key, (tensor, box, piece) in keys.items()
        ]  # fmt: skip
        told = [part for text in processes.tell(json.dumps(parts)) for part in json.loads(text)]
        with _agreed(path, processes):
            if not processes.rank:
                before = _parts_of(index)
                with replaced(path) as stream:
                    stream.write(_index(header, word, told))
                for old in before:
                    with suppress(OSError):
                        old.unlink()
        done = True
    finally:
        if not done:
            with suppress(OSError):
                written.unlink()


def _index(header: Header, word: str, told: list[dict[str, Any]]) -> bytes:
    tensors = {
        name: {
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "parts": [
                {k: v for k, v in part.items() if k != "tensor"}
                for part in told
                if part["tensor"] == name
            ],
        }
        for name, tensor in header.tensors.items()
    }
    content = {
        "format": INDEX, "version": VERSION, "of": word, "metadata": header.metadata,
        "tensors": tensors,
    }  # fmt: skip
    return json.dumps(content, indent=1).encode()


def _parts_of(index: Path) -> list[Path]:
    """The files that an existing index refers to, if it has this format."""
    try:
        content = json.loads(index.read_bytes()[: 2**24])
        if content["format"] != INDEX:
            return []
        word = content["of"]
        names = {p["file"] for each in content["tensors"].values() for p in each["parts"]}
        return [
            index.with_name(name)
            for name in names
            if Path(name).name == name and f".{word}." in name and name.endswith(".safetensors")
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return []


def _write(stream: BinaryIO, header: Header, arrays: Mapping[str, Held]) -> None:
    for name, held in arrays.items():
        for box, piece in held.pieces:
            write(stream, header.tensors[name], box, piece)
    stream.flush()
    os.fsync(stream.fileno())


@contextmanager
def _agreed(path: Any, processes: Processes) -> Iterator[None]:
    """Wait until all processes have run the block; if it fails on one, raise on all."""
    trouble, cause = "", None  # type: tuple[str, BaseException | None]
    try:
        yield
    except FileError as error:
        trouble, cause = error.reason, error.__cause__
    except OSError as error:
        trouble, cause = f"cannot be written ({error.strerror or error})", error
    told = processes.tell(trouble)
    first = next((rank for rank, text in enumerate(told) if text), None)
    if first is not None:
        where = f", on process {first}" if len(told) > 1 else ""
        raise FileError(path, f"{told[first]}{where}") from cause
