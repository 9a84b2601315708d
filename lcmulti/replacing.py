"""Write a file whole or not at all, beside what is there until it is finished."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from lcmulti.errors import FileError

__all__ = ["Replacement", "replaced"]


class Replacement:
    """A new content for a file, under a name of its own until `commit`.

    A link stays one, and the file behind it keeps its mode. The name is random: processes of the
    same number, in containers that share a file system, do not meet.

    Parameters
    ----------
    path : path-like
        What is to be replaced, or made.

    Attributes
    ----------
    temporary : Path
        Where the content is until then; in the same folder, and short whatever the file's name.
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
            If the folder cannot be written to.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with self.errors_told():
            stream = os.fdopen(os.open(self.temporary, flags, 0o666), "wb")
            with suppress(FileNotFoundError):
                os.chmod(self.temporary, stat.S_IMODE(self._target.stat().st_mode))  # noqa: PTH101
        return stream

    def commit(self) -> None:
        """Put the new content in the place of the old."""
        with self.errors_told():
            self.temporary.replace(self._target)

    def discard(self) -> None:
        """Remove the new content, if it has not been put in place."""
        with suppress(OSError):
            self.temporary.unlink()

    @contextmanager
    def errors_told(self) -> Iterator[None]:
        """Whatever the system says of the temporary file is said of the file."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise FileError(self.path, f"cannot be written ({reason})") from error


@contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Replace a file with what is written within the ``with`` block, when that has gone well.

    Raises
    ------
    FileError
        If it cannot be written; then, and after an interrupt, the old file is as it was and
        nothing is beside it.
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
