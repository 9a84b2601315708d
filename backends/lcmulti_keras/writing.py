"""Write several files: all of them, or none and what was there is as it was."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from lcmulti.errors import FileError, LcmultiError

__all__ = ["Written"]


class Written:
    """Files that are to appear together.

    Made before the work begins, so that a folder that cannot be written to is found out then.

    Parameters
    ----------
    paths : iterable of Path

    Raises
    ------
    FileError
        If a folder is missing or may not be written to.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self.stack = ExitStack()
        self.drafts: dict[Path, Path] = {}
        try:
            for path in paths:
                self.drafts[path] = self._folder(path) / path.name
        except BaseException:
            self.stack.close()
            raise

    def _folder(self, path: Path) -> Path:
        """A folder beside *path*, in which its draft has its name; it goes with this object."""
        try:
            if path.is_dir():
                raise IsADirectoryError("it is a directory")
            folder = tempfile.mkdtemp(prefix=".lcmulti-", dir=path.parent)
        except (OSError, ValueError) as error:
            raise _not_written(path, error) from error
        self.stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)

    def write(self, path: Path, write: Callable[[Path], None]) -> None:
        """Have *write* write one of the files, where no one sees it yet."""
        try:
            write(self.drafts[path])
            with self.drafts[path].open("rb") as stream:
                os.fsync(stream.fileno())
        except LcmultiError:
            raise
        except Exception as error:  # HDF5 has errors of its own for a full disk
            raise _not_written(path, error) from error

    def publish(self) -> None:
        """Put all files in their places, or put back what was there."""
        undo = ExitStack()
        try:
            for path, draft in self.drafts.items():
                kept = draft.with_name("kept" if draft.name != "kept" else "kept too")
                if path.exists():
                    _keep(path, kept)
                    undo.callback(kept.replace, path)
                else:
                    undo.callback(path.unlink, missing_ok=True)
                draft.replace(path)
        except OSError as error:
            with suppress(OSError):
                undo.close()
            raise _not_written(path, error) from error
        undo.pop_all()

    def __enter__(self) -> Written:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stack.close()


def _keep(path: Path, kept: Path) -> None:
    try:
        os.link(path, kept)
    except OSError:  # no hard links here
        shutil.copy2(path, kept)


def _not_written(path: Path, error: Exception) -> FileError:
    return FileError(path, f"cannot be written ({getattr(error, 'strerror', None) or error})")
