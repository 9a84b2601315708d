"""Geometries that together have every size: both sides of each power of two up to 4,096.

Implementations use other code above some size: that of a vector, a block, a cache or an index type.
So each argument (samples, channels, filters, groups, positions, taps, strides, dilation, padding)
is once ``2**p`` and once ``2**p + 1`` for every ``p`` up to 12, and once a prime halfway to the
next power, which leaves a remainder in blocks of any length. The sizes ``2**p + 1`` come in each of
the three kinds of geometry that implementations are written for. As many arguments as possible are
large in one case, so that a few cases have all sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from math import isqrt, log2, prod
from typing import Literal

from lcmulti.conformance.case import Case
from lcmulti.geometry.shapes import window_extent

__all__ = ["KINDS", "LARGEST", "PRIMES", "Side", "rows", "table"]

Side = Literal["at", "between", "over"]
LARGEST = 4096
PRIMES = (3, 7, 13, 23, 47, 97, 191, 383, 769, 1531, 3067)
"""A prime between each two powers of two."""
MOST_PRODUCTS, MOST_ELEMENTS = 250_000, 500_000
"""Largest number of products of a case, and of elements of an array: a few milliseconds each."""

OTHER_DTYPES = ("float16", "bfloat16", "float64")

KINDS: dict[str, tuple[str, ...]] = {
    "any": ("batch", "channels", "filters", "groups", "line", "grid", "taps", "window", "strides",
        "dilation", "padding"),
    "tiled": ("batch", "channels", "filters", "line", "grid", "taps", "window"),
    "convolution": ("batch", "channels", "filters", "groups", "line", "grid", "taps", "window",
        "strides", "dilation", "padding"),
    "shared": ("batch", "line", "taps"),
}  # fmt: skip
"""The varied arguments. A *line* is positions in 1D, a *grid* is positions in 2D or 3D by turns.
*taps* are those of a window in 1D, a *window* is one in 2D or 3D. In the *shared* kind, the line is
the first of two axes, along which the kernel is shared."""

LEAST = {"line": 2, "grid": 4, "taps": 2, "window": 4}
"""Sizes of arguments that are not large; others are 1."""


def levels(side: Side) -> list[int]:
    """Powers of two up to `LARGEST`, these plus one, or `PRIMES`; the largest first."""
    if side == "between":
        return list(PRIMES[::-1])
    return [2**p + (side == "over") for p in reversed(range(LARGEST.bit_length()))]


def split(count: int, axes: int) -> tuple[int, ...]:
    """*count*, or a little more, as a product of several sizes that are nearly equal."""
    if axes == 1:
        return (count,)
    first = isqrt(count) if axes == 2 else max(round(count ** (1 / 3)), 1)
    return (first, *split(-(-count // first), axes - 1))


def rows(few: bool) -> Iterator[tuple[Case, str]]:
    """Sizes just above powers of two in every type; in float32 also the powers and the primes.

    With *few*, each case is in only one of the other types, by turns: for frameworks that compile a
    program, or trace a graph, for each shape and type.
    """
    for kind in KINDS:
        for number, case in enumerate(table(kind, "over")):
            yield case, "float32"
            other = OTHER_DTYPES if kind != "any" else (*OTHER_DTYPES, "complex64")
            chosen = (other[number % len(other)],) if few else other
            yield from ((case, dtype) for dtype in chosen)
    for case in (*table("any", "at"), *table("any", "between")):
        yield case, "float32"


@cache
def table(kind: str, side: Side) -> tuple[Case, ...]:
    """Nearly the smallest number of cases of a kind that have every size of every argument."""
    pending = {argument: levels(side) for argument in KINDS[kind]}
    # The longest windows take longest to check, so they are in 1D or in more axes by turns.
    if "window" in pending:
        first = int(side == "over")
        pending["taps"] = pending["taps"][first::2]
        pending["window"] = pending["window"][1 - first :: 2]
    found: list[Case] = []
    while any(pending.values()):
        found.append(_next(kind, pending, len(found), side))
    return tuple(found)


def _next(kind: str, pending: dict[str, list[int]], index: int, side: Side) -> Case:
    """The case with the largest remaining sizes that fit together; they are removed."""

    def left(*names: str) -> float:
        return sum(log2(level) + 1 for name in names for level in pending[name])

    one = "grid" not in pending or left("line", "taps") >= left("grid", "window")
    ndim = 2 if kind == "shared" else 1 if one else 2 + index % 2
    absent = ("grid", "window") if one else ("line", "taps")
    names = sorted((each for each in pending if each not in absent), key=left, reverse=True)
    sizes = {name: LEAST.get(name, 1) for name in names}
    for name in names:  # the argument with the most remaining sizes chooses first
        for level in pending[name]:
            if (fitting := _case(kind, ndim, sizes | {name: level}, "")) and _is_small(fitting):
                sizes[name] = level
                pending[name].remove(level)
                break
    case = _case(kind, ndim, sizes, f"{kind}-{side}-{index}")
    assert case is not None
    return case


def _is_small(case: Case) -> bool:
    spec = case.spec
    arrays = (spec.input_shape, spec.output_shape, (*spec.padded_size, spec.in_channels))
    largest = max(case.batch * prod(shape) for shape in arrays)
    return case.products <= MOST_PRODUCTS and largest <= MOST_ELEMENTS


def _case(kind: str, ndim: int, sizes: dict[str, int], name: str) -> Case | None:
    """A case of these sizes, or None; channels and filters are those of a group."""
    groups = sizes.get("groups", 1)
    channels, filters = (groups * sizes.get(each, 1) for each in ("channels", "filters"))
    positions = split(sizes["line" if "line" in sizes else "grid"], ndim)
    window = split(sizes["taps" if "taps" in sizes else "window"], ndim)
    if kind == "shared":
        positions, window = (sizes["line"], 2), (sizes["taps"], 1)
    more = (1,) * (ndim - 1)
    strides, dilation = (sizes.get("strides", 1), *more), (sizes.get("dilation", 1), *more)
    idle = (strides[0] > 1 and positions[0] == 1) or (dilation[0] > 1 and window[0] == 1)
    if kind == "tiled":
        strides = window
    extents = map(window_extent, window, dilation)
    padded = [(n - 1) * s + e for n, s, e in zip(positions, strides, extents, strict=True)]
    zeros = sizes.get("padding", 1) - 1  # the smallest padding is 0
    if idle or zeros >= padded[0]:
        return None
    low = zeros - zeros // 3
    options = {
        "strides": strides, "dilation": dilation, "groups": groups,
        "padding": ((low, zeros - low), *((0, 0) for _ in more)),
    }  # fmt: skip
    size = (padded[0] - zeros, *padded[1:])
    axes = {"convolution": tuple(range(ndim)), "shared": (0,)}.get(kind, ())
    return Case(
        name, "sizes", (*size, channels), filters, window, sizes["batch"], axes, axes, options
    )
