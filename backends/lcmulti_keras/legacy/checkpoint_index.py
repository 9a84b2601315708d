"""Check that the index of a TensorFlow checkpoint is whole, before TensorFlow starts to read it.

The format is that of LevelDB's tables. Blocks of entries come first, then a block that lists them,
and last 48 bytes that say where this list is. Each block is followed by its checksum.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

__all__ = ["MAGIC", "is_whole"]

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER = 48
TRAILER = 5
"""Bytes behind a block: how it is compressed, and a checksum."""
MOST_LISTED = 2**16
"""Bytes of the list of blocks; TensorFlow writes 256 KiB of entries into a block."""
MOST_SUMMED = 2**20
"""Bytes whose checksums are computed here; this takes a tenth of a second."""
POLYNOMIAL = 0x82F63B78  # CRC-32C, reflected
MASK = 0xA282EAD8


def is_whole(content: bytes) -> bool:
    """Whether all blocks of an index lie within it, with the checksums they were written with."""
    try:
        footer = content[-FOOTER:]
        if len(footer) < FOOTER or not footer.endswith(MAGIC):
            return False
        handles, _ = _numbers(footer[:-8], 0, 4)
        body = content[:-FOOTER]
        if handles[3] > MOST_LISTED:
            return False
        places = [tuple(handles[:2]), tuple(handles[2:])]
        places += _handles(_block(body, *places[1])[0])
        total = sum(size + TRAILER for _, size in places)
        if total > len(body):
            return False
        blocks = [_block(body, *each) for each in places]
    except (ValueError, IndexError):
        return False
    return total > MOST_SUMMED or all(_masked(each) == told for each, told in blocks)


def _block(body: bytes, at: int, size: int) -> tuple[bytes, int]:
    """A block with its kind of compression, and its checksum."""
    end = at + size + TRAILER
    if end > len(body):
        raise ValueError("a block beyond the end")
    return body[at : end - 4], int.from_bytes(body[end - 4 : end], "little")


def _handles(block: bytes) -> Iterator[tuple[int, int]]:
    """Where the blocks are that a block lists."""
    content = block[:-1]
    end = len(content) - 4 - 4 * int.from_bytes(content[-4:], "little")
    at = 0
    while at < end:
        (_, key, value), at = _numbers(content, at, 3)
        at += key
        (start, size), _ = _numbers(content[at : at + value], 0, 2)
        yield start, size
        at += value


def _numbers(content: bytes, at: int, count: int) -> tuple[list[int], int]:
    """Numbers of seven bits a byte, the lowest first, and the place behind them."""
    found = []
    for _ in range(count):
        value = shift = 0
        while True:
            byte = content[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
            if shift > 63:
                raise ValueError("a number of more than 64 bits")
        found.append(value)
    return found, at


@cache
def _table() -> tuple[int, ...]:
    found = []
    for value in range(256):
        crc = value
        for _ in range(8):
            crc = crc >> 1 ^ (POLYNOMIAL if crc & 1 else 0)
        found.append(crc)
    return tuple(found)


def _masked(content: bytes) -> int:
    """The checksum of a block as LevelDB stores it."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in content:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF
