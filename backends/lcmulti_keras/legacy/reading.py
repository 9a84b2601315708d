"""Read an untrusted file.

Requirements this module is written to:

* Nothing is unpickled, executed, imported or written. No name in a file becomes a path.
* Nothing outside the file is read: no soft or external links, no virtual or external datasets.
* No size in the file is trusted: an array must be stored with the size that it claims, and all
  arrays together must fit in the file. So arrays may not be compressed; Keras never does that.
* C code parses files only in another process, with limits of memory and time.
* A file has one format: it is refused if another reader would read it as something else.
* A damaged file gives one clear `FileError`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from lcmulti.errors import FileError, LcmultiError, printable
from lcmulti.files import file_size, opened_file
from lcmulti_keras.legacy.checkpoint import is_checkpoint, read_checkpoint
from lcmulti_keras.legacy.hdf5 import read_hdf5
from lcmulti_keras.legacy.parsing import MOST_TEXT, read_json
from lcmulti_keras.legacy.stored import Archive, Folder
from lcmulti_keras.legacy.tensorflow_js import is_tensorflow_js, read_tensorflow_js
from lcmulti_keras.legacy.zipped import Zipped, ends_as_zip

__all__ = ["Archive", "opened"]

HDF5 = b"\x89HDF\r\n\x1a\n"
MOST_VERSION = 20
UNKNOWN = "1 or 2.0"


@contextmanager
def opened(path: Path, weights: Path | None = None) -> Iterator[Archive]:
    """Open and check a file that Keras 2 or tf_keras wrote.

    Parameters
    ----------
    path : Path
    weights : Path, optional
        If *path* holds only an architecture, the file with its weights.

    Raises
    ------
    FileError
        If it is missing, damaged or not safe, or a file of another kind.
    """
    with ExitStack() as stack:
        try:
            archive = _read(path, stack)
            if weights is not None:
                archive = _joined(path, archive, weights, stack)
        except LcmultiError:
            raise
        except OSError as error:
            raise FileError(path, f"cannot be read ({error.strerror or error})") from error
        except Exception as error:
            raise FileError(path, f"is damaged ({type(error).__name__}: {error})") from error
        try:
            yield archive
        except FileError as error:
            raise FileError(error.path or path, error.reason) from None


def _read(path: Path, stack: ExitStack) -> Archive:
    """The archive in a file. The file stays open as long as *stack*."""
    if os.path.isdir(path):  # noqa: PTH112 - which raises nothing, whatever the path
        raise FileError(path, _of_directory(path))
    if is_checkpoint(path):
        return read_checkpoint(path, stack)
    stream = stack.enter_context(opened_file(path))
    magic = stream.read(len(HDF5))
    if magic[:2] == b"PK":
        archive = Zipped(path, stream)
        part = stack.enter_context(archive.part("model.weights.h5"))
        return _from_zip(path, archive, read_hdf5(path, *part))
    if magic == HDF5:
        if ends_as_zip(stream):
            raise FileError(path, "is an HDF5 file and a zip archive at once")
        return _from_hdf5(path, read_hdf5(path, stream, 0, file_size(stream)))
    if magic.lstrip()[:1] in (b"{", b'"'):
        return _from_json(path, stream, stack)
    raise FileError(path, "is neither an HDF5 file nor a .keras archive, nor JSON")


def _of_directory(path: Path) -> str:
    """Why a directory is not read."""
    if not os.path.isfile(path / "saved_model.pb"):  # noqa: PTH113
        return "is a directory, not a file that Keras wrote"
    return (
        "is a SavedModel, which holds a program of TensorFlow; if you trust it, have the Keras "
        "that wrote it write a .h5 file: "
        "python -c \"import tf_keras; tf_keras.models.load_model('FOLDER').save('model.h5')\""
    )


def _joined(path: Path, archive: Archive, weights: Path, stack: ExitStack) -> Archive:
    """An architecture with the weights of another file."""
    if archive.weights is not None:
        raise FileError(path, "has weights of its own; another file's are for what to_json() gave")
    other = _read(weights, stack)
    if other.weights is None:
        raise FileError(weights, "has no weights")
    version = archive.version if archive.version != UNKNOWN else other.version
    return replace(other, config=archive.config, compile_config=None, version=version)


def _from_json(path: Path, stream: BinaryIO, stack: ExitStack) -> Archive:
    """The output of `model.to_json`, or TensorFlow.js' description of a model and its weights."""
    stream.seek(0)
    found = read_json(path, stream.read(MOST_TEXT + 1))
    if is_tensorflow_js(found):
        return read_tensorflow_js(path, found, stack)
    version = printable(found.pop("keras_version", UNKNOWN), MOST_VERSION)
    return Archive(found, None, version, None, by_path=False, has_optimizer=False)


def _from_zip(path: Path, archive: Zipped, weights: Folder) -> Archive:
    config = read_json(path, archive.text("config.json", MOST_TEXT))
    metadata = read_json(path, archive.text("metadata.json", MOST_TEXT))
    return Archive(
        config,
        config.get("compile_config"),
        printable(metadata.get("keras_version", "unknown"), MOST_VERSION),
        weights,
        by_path=True,
        has_optimizer="optimizer" in weights.members,
    )


def _from_hdf5(path: Path, file: Folder) -> Archive:
    config, training = file.attrs.get("model_config"), file.attrs.get("training_config")
    weights = file.get("model_weights") or file
    if not isinstance(weights, Folder):
        raise FileError(path, "has no group 'model_weights'")
    version = weights.attrs.get("keras_version", UNKNOWN)
    return Archive(
        None if config is None else read_json(path, config),
        None if training is None else read_json(path, training),
        printable(version, MOST_VERSION),
        weights,
        by_path=not any(n.startswith("layer_names") for n in weights.attrs)
        and any(name.rpartition("/")[0].endswith("vars") for name, _ in weights.arrays()),
        has_optimizer=bool({"optimizer_weights", "optimizer"} & set(file)),
        flipped=weights.attrs.get("backend") == "theano",
    )
