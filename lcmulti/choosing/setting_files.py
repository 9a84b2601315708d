"""Find and read the files that may hold settings.

A folder that may not be read counts as having no settings; ``lcmulti config`` lists it. A file
that exists and cannot be read, or would take long to read, is an error that names the file.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lcmulti.errors import ConfigError, FileError, described
from lcmulti.files import read_text

__all__ = ["ClosedPlaces", "keras_json", "project_table", "read_toml", "user_file"]

ClosedPlaces = dict[str, str]
"""Files whose existence cannot be checked, with the reason."""

MOST_BYTES = 256 * 2**10
QUOTED = re.compile(r'"[^"\n]*"|\'[^\'\n]*\'')
MANY_DOTS = re.compile(r"(?<![\w\\\"'-])(?:[\w\\\"'-]++[ \t]*+\.[ \t]*+){20}")
"""A key of twenty parts or more: the parser's time and memory grow with their square."""


def user_file() -> Path:
    """The user's own settings file."""
    import platformdirs

    return Path(platformdirs.user_config_dir("lcmulti", appauthor=False)) / "lcmulti.toml"


def is_there(path: Path, closed: ClosedPlaces) -> bool:
    """Whether there is something to read at a path; *closed* gets a reason if that is unknown."""
    try:
        # Not `Path.exists`, which from Python 3.14 on says no where it may not look.
        return not stat.S_ISDIR(path.stat().st_mode)
    except ValueError:  # a name that no file can have
        return False
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            closed[str(path)] = error.strerror or str(error)
        return False


def read_toml(path: Path, word: str = "") -> dict[str, Any]:
    """The tables of a TOML file; none if the file does not contain *word*.

    Raises
    ------
    ConfigError
        If it is not an ordinary file, is too large, or is not TOML.
    """
    try:
        text = read_text(path, MOST_BYTES).removeprefix("\ufeff")  # editors of Windows write it
        if word not in text:
            return {}
        if MANY_DOTS.search(QUOTED.sub("q", text)):
            raise ValueError("a key has twenty parts or more")
        return tomllib.loads(text)
    except FileError as error:
        raise ConfigError(
            str(path), "a readable TOML file", described(f"one that {error.reason}")
        ) from error
    except (ValueError, RecursionError) as error:
        why = str(error)
        if isinstance(error, RecursionError):
            why = "values nested too deep"
        elif "integer string conversion" in why:  # Python's own words name a function of its
            why = "a number of thousands of digits"
        raise ConfigError(str(path), "a readable TOML file", described(why)) from None


def project_table(closed: ClosedPlaces) -> tuple[Path, Mapping[str, Any]] | None:
    """The settings of the project that the current folder is in, and their file."""
    try:
        directory = Path.cwd()
    except OSError:  # the folder was deleted while the process was in it
        return None
    for folder in (directory, *directory.parents):
        own = folder / "lcmulti.toml"
        if is_there(own, closed):
            return own, read_toml(own)
        pyproject = folder / "pyproject.toml"
        if is_there(pyproject, closed):
            tool = read_toml(pyproject, "lcmulti").get("tool")
            table = tool.get("lcmulti") if isinstance(tool, dict) else None
            return (pyproject, _as_table(table, pyproject)) if table is not None else None
    return None


def _as_table(value: object, path: Path) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(str(path), "a table of settings", value)
    return value


def keras_json(closed: ClosedPlaces) -> tuple[Path, Any] | None:
    """Keras' own file and the data format in it.

    Keras treats a file that is not JSON as empty, and so does this function.

    Raises
    ------
    ConfigError
        If reading the file might not end, or might take much memory.
    """
    try:
        path = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "keras.json"
    except RuntimeError:  # the user has no home folder
        return None
    if not is_there(path, closed):
        return None
    try:
        content = json.loads(read_text(path, MOST_BYTES))
    except FileError as error:
        if isinstance(error.__cause__, PermissionError):
            closed[str(path)] = error.reason
            return None
        if isinstance(error.__cause__, UnicodeDecodeError):
            return None
        raise ConfigError(
            str(path), "a file that Keras can read", described(f"one that {error.reason}")
        ) from None
    except (ValueError, RecursionError):
        return None
    return (path, content.get("image_data_format")) if isinstance(content, dict) else None
