"""Read files that somebody else may have written, and write reports: or raise one error."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from lcmulti.errors import ArgumentError, ArgumentTypeError, FileError, described

__all__ = [
    "as_path", "file_size", "kind_of", "opened_file", "read_text", "require_writable", "write_file",
]  # fmt: skip

KINDS = (
    (stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"), (stat.S_ISSOCK, "a socket"),
)  # fmt: skip


def as_path(argument: str, value: Any) -> Path:
    """*value*, which is a caller's *argument*, as a path.

    Raises
    ------
    ArgumentTypeError
        If it is not a path.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise ArgumentTypeError(argument, "a path", value)
    return Path(value)


def kind_of(mode: int) -> str | None:
    """What a mode of `os.stat` is, ``"a pipe"`` for example, or None for an ordinary file."""
    if stat.S_ISREG(mode):
        return None
    return next((name for check, name in KINDS if check(mode)), "no ordinary file")


@contextmanager
def opened_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open an ordinary file to be read.

    Raises
    ------
    FileError
        If the file is missing or unreadable, or is a folder, a pipe or a device. Reading a pipe
        or a device might never end.
    """
    # Without this flag, `open` itself would wait for a writer of a pipe.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
    except (OSError, ValueError) as error:  # ValueError: a NUL, or half a character
        reason = getattr(error, "strerror", None) or error
        raise FileError(path, f"cannot be read ({reason})") from error
    kind = kind_of(os.fstat(descriptor).st_mode)
    if kind is not None:
        os.close(descriptor)
        raise FileError(path, f"is {kind}, not a file")
    with os.fdopen(descriptor, "rb") as stream:
        yield stream


def file_size(stream: BinaryIO) -> int:
    """Bytes of an open file."""
    return os.fstat(stream.fileno()).st_size


def read_text(path: str | os.PathLike[str], most: int) -> str:
    """The text of a file of at most so many bytes, in UTF-8.

    Raises
    ------
    FileError
        As `opened_file`; also if it is larger, or not UTF-8.
    """
    with opened_file(path) as stream:
        try:
            content = stream.read(most + 1)
        except OSError as error:
            raise FileError(path, f"cannot be read ({error.strerror or error})") from error
    if len(content) > most:
        raise FileError(path, f"is larger than {most:,} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileError(path, f"is not UTF-8 ({error.reason} at byte {error.start})") from error


def require_writable(argument: str, path: str | os.PathLike[str]) -> None:
    """Check that a file can be written, before the work begins whose result it will hold.

    Raises
    ------
    ArgumentError
        If the file is a folder, or its own folder does not exist or may not be written to.
    """
    folder = Path(path).parent
    if not folder.is_dir() or Path(path).is_dir():
        raise ArgumentError(argument, "a file in a folder that exists", described(str(path)))
    if not os.access(path if Path(path).exists() else folder, os.W_OK):
        raise ArgumentError(argument, "a file that may be written", described(str(path)))


def write_file(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file; text in UTF-8.

    Raises
    ------
    FileError
        If it cannot be written.
    """
    try:
        Path(path).write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    except OSError as error:
        raise FileError(path, f"cannot be written ({error.strerror or error})") from error
