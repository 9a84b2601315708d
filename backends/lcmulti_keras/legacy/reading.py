"""Read a stranger's HDF5 file or zip archive without trusting a word of it.

Requirements this module is written to:

* Nothing is unpickled, executed, imported or written; no name in a file becomes a path.
* Nothing outside the file is read: no soft or external links, virtual or external datasets.
* Nothing is allocated on the file's word: an array must be stored as large as it says it is.
* A damaged file is one clear `FileError`, whatever HDF5 or zlib made of it.
"""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lcmulti.errors import FileError

__all__ = ["Archive", "opened", "read_json"]

MEBIBYTE = 2**20
MOST_JSON = 64 * MEBIBYTE
MOST_RATIO = 100
"""Times an array may grow when it is decompressed, beyond `FREE_GROWTH` bytes."""
FREE_GROWTH = 64 * MEBIBYTE
MOST_OBJECTS = 1_000_000
MOST_DEPTH = 100
FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}


@dataclass
class Archive:
    """An old model's file, checked.

    Parameters
    ----------
    config, compile_config : dict or None
        The architecture and how it was compiled.
    version : str
        The Keras that wrote it, as far as the file says.
    weights : h5py.Group
        Where the weights are.
    by_path : bool
        Whether weights are found by the path of their layer (``.keras``, ``.weights.h5``)
        rather than by its name (``.h5``).
    has_optimizer : bool
        Whether the state of an optimizer is there, which is not carried over.
    """

    config: dict[str, Any] | None
    compile_config: dict[str, Any] | None
    version: str
    weights: h5py.Group
    by_path: bool
    has_optimizer: bool

    def strings(self, group: h5py.Group, name: str) -> list[str]:
        """A list of names from an attribute, which Keras splits into several when it is long."""
        whole = _attribute(group, name)
        if whole is not None:
            return _texts(whole, name)
        found: list[str] = []
        for part in itertools.count():
            piece = _attribute(group, f"{name}{part}")
            if piece is None:
                return found
            found += _texts(piece, name)
        return found


@contextmanager
def opened(path: Any) -> Iterator[Archive]:
    """Open and check a file that Keras 2 or tf_keras wrote.

    Raises
    ------
    FileError
        If it is missing, of another kind, damaged, or not to be trusted.
    """
    path = Path(path)
    if path.is_dir():
        reason = "is a directory; of Keras 2's formats, .h5 and .keras can be read, a SavedModel "
        raise FileError(path, reason + "cannot: save it as .h5 with the Keras that wrote it")
    try:
        with path.open("rb") as stream:
            magic = stream.read(8)
            stream.seek(0)
            with _refusing(path):
                if magic[:2] == b"PK":
                    with zipfile.ZipFile(stream) as archive:
                        yield _from_zip(path, archive)
                elif magic == b"\x89HDF\r\n\x1a\n":
                    with h5py.File(stream, "r") as file:
                        yield _from_hdf5(path, file, path.stat().st_size)
                else:
                    raise FileError(path, "is neither an HDF5 file nor a .keras archive")
    except OSError as error:
        raise FileError(path, f"cannot be read ({error.strerror or error})") from error


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turn what damage makes HDF5, zlib and their bindings raise into one kind of error."""
    try:
        yield
    except FileError as error:
        raise FileError(path, error.reason) if error.path != path else error from None
    except (
        zipfile.BadZipFile,
        OSError,
        KeyError,
        RuntimeError,
        EOFError,
        NotImplementedError,
    ) as e:
        if isinstance(e, FileNotFoundError):
            raise
        raise FileError(path, f"is damaged ({type(e).__name__}: {e})") from e


def _from_zip(path: Path, archive: zipfile.ZipFile) -> Archive:
    config = read_json(path, _member(path, archive, "config.json", MOST_JSON))
    metadata = read_json(path, _member(path, archive, "metadata.json", MOST_JSON))
    content = _member(path, archive, "model.weights.h5", None)
    file = h5py.File(io.BytesIO(content), "r")
    _check_tree(path, file, len(content))
    return Archive(
        config,
        config.get("compile_config"),
        str(metadata.get("keras_version", "unknown")),
        file,
        by_path=True,
        has_optimizer="optimizer" in file,
    )


def _member(path: Path, archive: zipfile.ZipFile, name: str, most: int | None) -> bytes:
    matching = [info for info in archive.infolist() if info.filename == name]
    if len(matching) != 1:
        raise FileError(path, f"has {len(matching)} members {name!r}, not one")
    (info,) = matching
    allowed = max(FREE_GROWTH, MOST_RATIO * info.compress_size)
    allowed = min(allowed, most) if most is not None else allowed
    if info.flag_bits & 1 or info.file_size > allowed:
        raise FileError(path, f"claims {info.file_size:,} bytes for {name!r}, or encrypts it")
    with archive.open(info) as stream:
        content = stream.read(info.file_size + 1)
    if len(content) != info.file_size:
        raise FileError(path, f"holds another number of bytes of {name!r} than it says")
    return content


def _from_hdf5(path: Path, file: h5py.File, size: int) -> Archive:
    _check_tree(path, file, size)
    config = _attribute(file, "model_config")
    training = _attribute(file, "training_config")
    nested = "model_weights" in file
    weights = file["model_weights"] if nested else file
    version = _attribute(weights, "keras_version")
    by_path = _attribute(weights, "layer_names") is None and "layers" in file
    return Archive(
        None if config is None else read_json(path, config),
        None if training is None else read_json(path, training),
        "1 or 2.0" if version is None else _texts(version, "keras_version")[0],
        weights,
        by_path=by_path,
        has_optimizer="optimizer_weights" in file or "optimizer" in file,
    )


def read_json(path: Path, text: Any) -> dict[str, Any]:
    """Parse a JSON object, refusing depth that would overflow and numbers that are none."""

    def refused(constant: str) -> Any:
        raise FileError(path, f"has the number {constant} in its configuration")

    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else str(text)
        parsed = json.loads(text, parse_constant=refused)
    except (ValueError, RecursionError) as error:
        raise FileError(path, f"has a configuration that is no JSON ({error})") from None
    if not isinstance(parsed, dict):
        raise FileError(path, "has a configuration that is no JSON object")
    _check_depth(path, parsed)
    return parsed


def _check_depth(path: Path, parsed: Any) -> None:
    level, depth = [parsed], 0
    while level:
        if depth > MOST_DEPTH:
            raise FileError(path, f"has a configuration nested deeper than {MOST_DEPTH}")
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, (dict, list))
        ]
        depth += 1


def _check_tree(path: Path, file: h5py.File, size: int) -> None:
    """Refuse links, datasets and attributes that reach outside or lie about their size."""
    names: list[bytes] = []

    def note(name: bytes, info: Any) -> Any:
        # HDF5 calls this: whatever is wrong is raised after it, and any value but None stops it.
        names.append(name)
        foreign = info.type != h5py.h5l.TYPE_HARD
        return name if foreign or len(names) > MOST_OBJECTS else None

    odd = file.id.links.visit(note, info=True)
    if odd is not None:
        shown = odd.decode("utf-8", "replace")
        raise FileError(path, f"has a soft or external link, {shown!r:.80}, or too many objects")
    _check_object(path, "/", file.id, size)
    for name in names:
        _check_object(path, name.decode("utf-8", "replace"), h5py.h5o.open(file.id, name), size)


def _check_object(path: Path, name: str, low: Any, size: int) -> None:
    for i in range(h5py.h5a.get_num_attrs(low)):
        attribute = h5py.h5a.open(low, index=i)
        if prod(map(int, attribute.shape or ())) * attribute.get_type().get_size() > size:
            raise FileError(path, f"has an attribute of {name!r} larger than the file")
    if isinstance(low, h5py.h5d.DatasetID):
        _check_dataset(path, name, h5py.Dataset(low), size)
    elif not isinstance(low, h5py.h5g.GroupID):
        raise FileError(path, f"has {name!r}, which is neither a group nor a dataset")


def _check_dataset(path: Path, name: str, dataset: h5py.Dataset, size: int) -> None:
    if dataset.external is not None or dataset.is_virtual:
        raise FileError(path, f"has {name!r} stored outside the file")
    if dataset.dtype.kind not in "fiub" or dataset.dtype.hasobject:
        return  # a table of strings: never read
    creation = dataset.id.get_create_plist()
    filters = {creation.get_filter(i)[0] for i in range(creation.get_nfilters())}
    if not filters <= FILTERS:
        raise FileError(path, f"has {name!r} compressed in an unknown way")
    stored = dataset.id.get_storage_size()
    allowed = stored if not filters else max(FREE_GROWTH, MOST_RATIO * stored)
    needed = prod(map(int, dataset.shape or ())) * dataset.dtype.itemsize  # ints do not overflow
    if dataset.shape is None or needed > allowed or stored > size:
        shape = dataset.shape
        raise FileError(path, f"claims shape {shape} for {name!r} but stores {stored:,} bytes")


def _attribute(group: h5py.Group, name: str) -> Any:
    return group.attrs.get(name)


def _texts(value: Any, name: str) -> list[str]:
    found = []
    for each in np.ravel(np.asarray(value, dtype=object)):
        if not isinstance(each, (str, bytes)):
            raise FileError("", f"has {name!r} that are no names")
        found.append(each.decode("utf-8") if isinstance(each, bytes) else each)
    return found
