"""The user's own settings file: set and remove an entry."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lcmulti.choosing import settings
from lcmulti.choosing.setting_files import ClosedPlaces, is_there, read_toml
from lcmulti.errors import ConfigError, FileError, described
from lcmulti.replacing import replaced

__all__ = ["remove_user_setting", "write_user_setting"]

_BARE = r"[A-Za-z0-9_-]+"


def write_user_setting(name: str, value: str) -> Path:
    """Check a setting and write it to the user's file, keeping the others.

    Raises
    ------
    ConfigError
        If the setting or its value is unknown, or the file cannot be read or written.
    """
    settings.parse(name, value, "lcmulti config set")
    path = settings.user_file()
    table = _table() | {name: "auto" if value is None else value}  # TOML has no null
    for key, entry in table.items():
        settings.parse(key, entry, str(path))
    return _write(path, table)


def remove_user_setting(name: str) -> bool:
    """Remove a setting, even an unknown one, from the user's file; return whether it was there.

    Raises
    ------
    ConfigError
        If the file cannot be read or written, or *name* is neither in the file nor a setting.
    """
    path, table = settings.user_file(), _table()
    if name not in table:
        settings.require_known(name, "lcmulti config unset")
        return False
    del table[name]
    for key, entry in table.items():
        if not isinstance(entry, (str, int)):
            raise ConfigError(str(path), f"a name or a number as {key!r}", entry)
    _write(path, table)
    return True


def _table() -> dict[str, Any]:
    path, closed = settings.user_file(), ClosedPlaces()
    found = read_toml(path) if is_there(path, closed) else {}
    if closed:
        raise ConfigError(
            str(path), "a file in a folder one may enter", described(closed[str(path)])
        )
    return found


def _write(path: Path, table: Mapping[str, Any]) -> Path:
    # Every setting is a string or an integer, which JSON and TOML write in the same way.
    text = "".join(f"{json.dumps(key) if not re.fullmatch(_BARE, key) else key} = "
                   f"{json.dumps(entry)}\n" for key, entry in table.items())  # fmt: skip
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Readers see the old file or the new one, never a part of it.
        with replaced(path) as stream:
            stream.write(text.encode("utf-8"))
    except (OSError, FileError) as error:
        shown = described(str(error.__cause__ or error))
        raise ConfigError(str(path), "a writable file", shown) from error
    settings.reload()
    return path
