"""How long an HDF5 file says its strings are, which HDF5 believes.

A string of variable length is a reference, ``(length, address, index)``. HDF5 allocates the length
before it looks at the address, and gives out one string as often as it is referred to: a file of
20 KB could ask for 4 GB. There is no call that tells the lengths, so they are read here from the
attributes' messages (HDF5 File Format Specification 3.0, IV.A.2.m), wherever in the file they are.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from math import prod
from typing import Any

__all__ = ["ADDRESS_SIZES", "strings_claimed"]

ADDRESS_SIZES = (8, 8)
"""Bytes of an address and of a length in files this module can read; HDF5's default."""

VARIABLE_LENGTH = 9
UNKNOWN = 2**32
REFERENCE = struct.Struct("<I8sI")


def strings_claimed(content: Any, names: tuple[str, ...]) -> int:
    """Bytes of all strings that attributes refer to, each as often as it is referred to.

    Parameters
    ----------
    content : bytes or mmap
        The whole file.
    names : tuple of str
        Of the attributes; a number may follow.
    """
    claimed = 0
    for name in names:
        at = -1
        while (at := content.find(name.encode(), at + 1)) >= 0:
            claimed += sum(_lengths(content, at))
    return claimed


def _lengths(content: Any, at: int) -> Iterator[int]:
    """Lengths of the strings of the attribute whose name is at *at*, if it is an attribute's."""
    for version, header in ((1, 8), (2, 8), (3, 9)):
        if at < header or content[at - header] != version:
            continue
        sizes = struct.unpack_from("<HHH", content, at - header + 2)
        if not re.fullmatch(rb"\w+\0", content[at : at + sizes[0]]):
            continue
        if version > 1 and content[at - header + 1]:
            yield UNKNOWN  # its type or shape is elsewhere, where Keras never puts it
        # The parts of the first version are padded to 8 bytes each.
        padded = [-(-n // 8) * 8 if version == 1 else n for n in sizes]
        kind, space, data = at + padded[0], at + sum(padded[:2]), at + sum(padded)
        if content[kind] & 0x0F != VARIABLE_LENGTH:
            continue
        rank, dims = content[space + 1], space + {1: 8}.get(content[space], 4)
        count = prod(struct.unpack_from(f"<{rank}Q", content, dims))
        count = min(count, (len(content) - data) // REFERENCE.size)
        for i in range(count):
            yield REFERENCE.unpack_from(content, data + i * REFERENCE.size)[0]
