"""Write several files together: either all are written, or existing files are unchanged."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from lcmulti.errors import FileError, LcmultiError
from lcmulti.replacing import mode_of

__all__ = ["Written"]


class Written:
    """Files that are written together.

    It is made before the work begins, so that a folder that cannot be written to raises early.
    Symbolic links stay links, and the files behind them keep their modes.

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
        self.targets = {path: _target(path) for path in paths}
        self.drafts: dict[Path, Path] = {}
        try:
            for path, target in self.targets.items():
                self.drafts[path] = self._folder(path, target) / path.name
        except BaseException:
            self.stack.close()
            raise

    def _folder(self, path: Path, target: Path) -> Path:
        """A temporary folder beside *target* for a draft with the name of *path*."""
        try:
            mode_of(target)
            folder = tempfile.mkdtemp(prefix=".lcmulti-", dir=target.parent)
        except (OSError, ValueError) as error:
            raise _not_written(path, error) from error
        self.stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)

    def write(self, path: Path, write: Callable[[Path], None]) -> None:
        """Let *write* write the draft of one of the files."""
        try:
            write(self.drafts[path])
            with self.drafts[path].open("rb") as stream:
                os.fsync(stream.fileno())
        except LcmultiError:
            raise
        except Exception as error:  # HDF5 raises other errors for a full disk
            raise _not_written(path, error) from error

    def publish(self) -> None:
        """Move all drafts to their places, or restore what was there."""
        undo = ExitStack()
        try:
            for path, draft in self.drafts.items():
                target = self.targets[path]
                mode = mode_of(target)
                if mode is None:
                    undo.callback(target.unlink, missing_ok=True)
                else:
                    draft.chmod(mode)
                    kept = draft.with_name("kept" if draft.name != "kept" else "kept too")
                    _keep(target, kept)
                    undo.callback(kept.replace, target)
                draft.replace(target)
        except BaseException as error:  # an interrupt, too, leaves all files or none
            with suppress(OSError):
                undo.close()
            if isinstance(error, OSError):
                raise _not_written(path, error) from error
            raise
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


def _target(path: Path) -> Path:
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError) as error:
        raise _not_written(path, error) from error


def _keep(path: Path, kept: Path) -> None:
    try:
        os.link(path, kept)
    except OSError:  # this file system has no hard links
        shutil.copy2(path, kept)


def _not_written(path: Path, error: Exception) -> FileError:
    return FileError(path, f"cannot be written ({getattr(error, 'strerror', None) or error})")
