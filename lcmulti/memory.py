"""Compare the memory that arrays need with the memory of this machine, before making them."""

from __future__ import annotations

import os
from math import inf, prod

from lcmulti.dtypes import DTYPES
from lcmulti.errors import TooLargeError, described

__all__ = ["memory_for", "require_memory"]


def memory_for(shape: tuple[int, ...], dtype: str, copies: int = 1) -> tuple[int, float]:
    """Bytes that arrays of this shape take, and bytes of memory this machine has."""
    size = copies * prod(shape) * DTYPES[dtype].itemsize
    try:
        return size, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not POSIX: let the allocation decide
        return size, inf


def require_memory(argument: str, shape: tuple[int, ...], dtype: str, copies: int = 1) -> None:
    """Raise if this machine's memory cannot hold an array; called before the array is made.

    Parameters
    ----------
    argument : str
        The argument that makes it so large, for the message.
    shape : tuple of int
    dtype : str
    copies : int, default 1
        How many arrays of this shape will exist at once.

    Raises
    ------
    TooLargeError
        Names the shape, its size in bytes and the memory of the machine.
    """
    size, memory = memory_for(shape, dtype, copies)
    if size > memory:
        raise TooLargeError(
            argument,
            f"arrays that fit this machine's memory of {memory / 2**30:,.0f} GiB",
            described(f"shape {shape} of {dtype}, which takes {size >> 30:,} GiB"),
        )
