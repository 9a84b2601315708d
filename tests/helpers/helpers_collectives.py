"""Read from a compiled program what it sends from device to device."""

from __future__ import annotations

import re
from typing import NamedTuple

SIZES = {"u16": 2, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "f64": 8, "c64": 8, "c128": 16}
KINDS = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")
_LINE = re.compile(rf"= (\(.*?\)|\S+) ({'|'.join(KINDS)})(?:-start)?\((.*)$", re.MULTILINE)
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


class Collective(NamedTuple):
    """One instruction: its kind, the largest array that a device receives, and all bytes."""

    kind: str
    shape: tuple[int, ...]
    bytes: int


def collectives(compiled) -> list[Collective]:
    """Return a program's collectives. A permute counts the bytes of all pairs of devices."""
    found = []
    for result, kind, rest in _LINE.findall(compiled.as_text()):
        arrays = [
            (tuple(int(n) for n in sizes.split(",") if n), SIZES[dtype])
            for dtype, sizes in _ARRAY.findall(result)
        ]
        volumes = [_product(shape) * size for shape, size in arrays]
        pairs = len(re.findall(r"\{\d+,\d+\}", rest.split("source_target_pairs=")[-1]))
        times = pairs if kind == "collective-permute" else 1
        shape = max(arrays, key=lambda each: _product(each[0]))[0]
        found.append(Collective(kind, shape, sum(volumes) * times))
    return found


def _product(sizes) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product
