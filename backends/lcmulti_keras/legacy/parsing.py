"""Parse untrusted JSON: with one meaning, little memory, and finite numbers."""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path
from typing import Any

from lcmulti.errors import FileError

__all__ = ["MOST_TEXT", "read_json"]

MOST_TEXT = 8 * 2**20
MOST_VALUES = 2_000_000
"""Largest size of a configuration, which may contain a whole table of embeddings."""
MOST_CONTAINERS = 200_000
"""Largest number of lists and objects, which take several times the memory of numbers."""
MOST_DEPTH = 100


def read_json(path: Path, text: Any) -> dict[str, Any]:
    """Parse a JSON object; raise if it overflows, takes much memory or has two meanings."""

    def refused(constant: str) -> Any:
        raise FileError(path, f"has the number {constant} in its configuration")

    def finite(text: str) -> float:
        number = float(text)
        return number if isfinite(number) else refused(text)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise FileError(path, "has a configuration with one key twice")
        return found

    try:
        if len(text) > MOST_TEXT:
            raise FileError(path, f"has a configuration of more than {MOST_TEXT:,} bytes")
        text = text.decode("utf-8") if isinstance(text, bytes) else str(text)
        if text.lstrip()[:1] == '"':  # what `model.to_json` gave, dumped as JSON once more
            text = json.loads(text)
        opened = sum(map(text.count, "[{"))
        if opened + text.count(",") > MOST_VALUES or opened > MOST_CONTAINERS:
            raise FileError(path, f"has a configuration of more than {MOST_VALUES:,} values")
        parsed = json.loads(
            text, parse_constant=refused, parse_float=finite, object_pairs_hook=unique
        )
    except FileError:
        raise
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
