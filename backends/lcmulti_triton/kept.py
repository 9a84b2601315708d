"""Figures of compiled kernels, which are kept with the source. Tiles are chosen by them."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from lcmulti_triton.figures import Figures
from lcmulti_triton.layer import Tile

__all__ = ["TABLE", "figures_of", "key", "table"]

TABLE = "figures.json"
CHOSEN_BY = "sm_90"
"""The target whose figures choose tiles on every GPU, so that sums have the same order on all."""


def key(map_: str, dtype: str, tile: Tile, *more: str) -> str:
    """The name of a kernel in the table; *more* distinguishes special ones."""
    return " ".join((map_, dtype, str(tile), *more))


@cache
def table() -> dict[str, Any]:
    """Figures by target and kernel; empty if none are kept."""
    file = resources.files(__package__) / "data" / TABLE
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"targets": {}}


def figures_of(map_: str, dtype: str, tile: Tile) -> Figures | None:
    """The figures of a kernel for the target by which tiles are chosen.

    Both half types compile to the same code, except for the name of an instruction.
    """
    kernels = table()["targets"].get(CHOSEN_BY, {})
    name = "bfloat16" if dtype == "float16" else dtype
    found = kernels.get(key(map_, name, tile)) or kernels.get(key(map_, dtype, tile))
    return None if found is None else Figures(*found)
