"""Replace a file in one step: its new content is written beside it first, then renamed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from lcmulti.errors import FileError
from lcmulti.files import kind_of

__all__ = ["Replacement", "mode_of", "replaced"]


def mode_of(target: Path) -> int | None:
    """The permissions of a file that will be replaced; None if there is none.

    Raises
    ------
    OSError
        If it is a folder, a pipe or a device, in whose place no file may be put.
    """
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return None
    kind = kind_of(mode)
    if kind is not None:
        raise OSError(f"it is {kind}, not a file")
    return stat.S_IMODE(mode)


class Replacement:
    """New content for a file, kept under a temporary name until `commit`.

    A symbolic link stays a link, and the file behind it keeps its mode. The temporary name is
    random, because processes in different containers may share a file system and a process id.

    Parameters
    ----------
    path : path-like
        The file to replace or to make.

    Attributes
    ----------
    temporary : Path
        Where the new content is until `commit`: a file with a short name in the same folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        try:
            self._target = Path(os.path.realpath(path))
            self.temporary = self._target.with_name(f".lcmulti-{uuid4().hex}.tmp")
        except (OSError, ValueError) as error:  # ValueError: no name, or a NUL in it
            raise FileError(path, f"cannot be written ({error})") from error

    def create(self) -> BinaryIO:
        """Open the new content, empty.

        Raises
        ------
        FileError
            If the folder cannot be written to, or the file is a device or the like.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with self.errors_told():
            mode = mode_of(self._target)
            stream = os.fdopen(os.open(self.temporary, flags, 0o666), "wb")
            if mode is not None:
                self.temporary.chmod(mode)
        return stream

    def commit(self) -> None:
        """Replace the old content by the new."""
        with self.errors_told():
            self.temporary.replace(self._target)

    def discard(self) -> None:
        """Remove the new content, unless it is in place already."""
        with suppress(OSError):
            self.temporary.unlink()

    @contextmanager
    def errors_told(self) -> Iterator[None]:
        """Report an error about the temporary file as an error about the file itself."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise FileError(self.path, f"cannot be written ({reason})") from error


@contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Replace a file with what the ``with`` block writes, once the block has ended without error.

    Raises
    ------
    FileError
        If the file cannot be written. Then, as after an interrupt, the old file is unchanged and
        no temporary file is left.
    """
    new = Replacement(path)
    try:
        with new.errors_told(), new.create() as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        new.commit()
    finally:
        new.discard()
