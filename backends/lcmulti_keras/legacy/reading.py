"""Read a stranger's HDF5 file or zip archive without trusting a word of it.

Requirements this module is written to:

* Nothing is unpickled, executed, imported or written; no name in a file becomes a path.
* Nothing outside the file is read: no soft or external links, virtual or external datasets.
* Nothing is allocated on the file's word: an array must be stored as large as it says it is, and
  all arrays, as all strings, together fit in the file. So none may be compressed, which Keras
  never does.
* A damaged file is one clear `FileError`, whatever HDF5 or zlib made of it.
"""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lcmulti.errors import FileError, LcmultiError
from lcmulti_keras.legacy.parsing import read_json
from lcmulti_keras.legacy.strings import ADDRESS_SIZES, strings_claimed

__all__ = ["Archive", "opened"]

ATTRIBUTES = (
    "model_config", "training_config", "keras_version", "layer_names", "weight_names", "backend",
)  # fmt: skip
"""All that are read, some with a number behind them."""
MEBIBYTE = 2**20
MOST_JSON = 64 * MEBIBYTE
MOST_RATIO = 100
"""Times a member of an archive may grow when it is decompressed, beyond `FREE_GROWTH` bytes."""
FREE_GROWTH = 64 * MEBIBYTE
MOST_OBJECTS = 1_000_000


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
    flipped : bool
        Whether it was written on Theano, whose convolutions flip the window.
    """

    config: dict[str, Any] | None
    compile_config: dict[str, Any] | None
    version: str
    weights: h5py.Group
    by_path: bool
    has_optimizer: bool
    flipped: bool = False

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
                    with (
                        mmap(stream.fileno(), 0, access=ACCESS_READ) as content,
                        h5py.File(stream, "r") as file,
                    ):
                        yield _from_hdf5(path, file, content)
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
    except (LcmultiError, FileNotFoundError):
        raise
    except Exception as error:
        raise FileError(path, f"is damaged ({type(error).__name__}: {error})") from error


def _from_zip(path: Path, archive: zipfile.ZipFile) -> Archive:
    config = read_json(path, _member(path, archive, "config.json", MOST_JSON))
    metadata = read_json(path, _member(path, archive, "metadata.json", MOST_JSON))
    content = _member(path, archive, "model.weights.h5", None)
    file = h5py.File(io.BytesIO(content), "r")
    _check_file(path, file, content)
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
    # Python decompresses bzip2 and LZMA without a limit on what comes out.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FileError(path, f"has {name!r} compressed in an unknown way")
    with archive.open(info) as stream:
        content = stream.read(info.file_size + 1)
    if len(content) != info.file_size:
        raise FileError(path, f"holds another number of bytes of {name!r} than it says")
    return content


def _from_hdf5(path: Path, file: h5py.File, content: mmap) -> Archive:
    _check_file(path, file, content)
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
        flipped=_attribute(weights, "backend") in ("theano", b"theano"),
    )


def _check_file(path: Path, file: h5py.File, content: bytes | mmap) -> None:
    """Refuse links, datasets and attributes that reach outside or lie about their size."""
    size = len(content)
    if file.id.get_create_plist().get_sizes() != ADDRESS_SIZES:
        raise FileError(path, "has addresses of a size that Keras does not write")
    claimed = strings_claimed(content, ATTRIBUTES)
    if claimed > size:
        raise FileError(path, f"claims strings of {claimed:,} bytes and has {size:,}")
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
    claimed = _check_object(path, "/", file.id, size)
    for name in names:
        shown = name.decode("utf-8", "replace")
        claimed += _check_object(path, shown, h5py.h5o.open(file.id, name), size)
    if claimed > size:
        raise FileError(path, f"claims arrays of {claimed:,} bytes and has {size:,}")


def _check_object(path: Path, name: str, low: Any, size: int) -> int:
    """Refuse what reaches outside the file or lies; return the bytes its array takes."""
    for i in range(h5py.h5a.get_num_attrs(low)):
        attribute = h5py.h5a.open(low, index=i)
        if prod(map(int, attribute.shape or ())) * attribute.get_type().get_size() > size:
            raise FileError(path, f"has an attribute of {name!r} larger than the file")
    if isinstance(low, h5py.h5d.DatasetID):
        return _check_dataset(path, name, h5py.Dataset(low))
    if not isinstance(low, h5py.h5g.GroupID):
        raise FileError(path, f"has {name!r}, which is neither a group nor a dataset")
    return 0


def _check_dataset(path: Path, name: str, dataset: h5py.Dataset) -> int:
    if dataset.external is not None or dataset.is_virtual:
        raise FileError(path, f"has {name!r} stored outside the file")
    if dataset.dtype.kind not in "fiub" or dataset.dtype.hasobject:
        return 0  # a table of strings: never read
    if dataset.id.get_create_plist().get_nfilters():
        undo = "Keras does not; undo it with: h5repack -f NONE OLD NEW"
        raise FileError(path, f"has {name!r} compressed, which {undo}")
    stored = dataset.id.get_storage_size()
    needed = prod(map(int, dataset.shape or ())) * dataset.dtype.itemsize  # ints do not overflow
    if dataset.shape is None or needed > stored:
        shape = dataset.shape
        raise FileError(path, f"claims shape {shape} for {name!r} but stores {stored:,} bytes")
    return max(stored, needed)


def _attribute(group: h5py.Group, name: str) -> Any:
    return group.attrs.get(name)


def _texts(value: Any, name: str) -> list[str]:
    found = []
    for each in np.ravel(np.asarray(value, dtype=object)):
        if not isinstance(each, (str, bytes)):
            raise FileError("", f"has {name!r} that are no names")
        found.append(each.decode("utf-8") if isinstance(each, bytes) else each)
    return found
