"""The tiles that can serve a map, the one with the shortest estimate, and the use of tf32x3."""

from __future__ import annotations

from functools import lru_cache

from lcmulti_triton.axes import Axis
from lcmulti_triton.layer import Layer, Tile

__all__ = ["candidates", "estimated", "nominal", "refused_tf32x3", "smallest"]

FEW = 8
"""Up to this product of channels and filters, positions are the lanes: a sector of float32."""

THIN = 8
"""Up to this many samples, filters are the lanes, without dots, which would pad samples to 16."""

# (samples, terms or channels, filters, warps, stages). Sums of half types are held in float32, so a
# tile takes as many registers as in float32. But a load brings twice as many numbers, and a step is
# a matrix instruction, which shorter tiles would mostly wait for.
WIDE = {
    "forward": (
        (32, 16, 16, 1, 3), (32, 16, 32, 1, 3), (64, 16, 64, 4, 3),
        (128, 16, 128, 8, 3),
    ),
    "input_grad": (
        (32, 16, 16, 1, 3), (32, 32, 16, 1, 3), (64, 64, 16, 4, 2),  # 3 stages spill on sm_100
        (128, 128, 16, 8, 3),
    ),
    "windows": (  # of the same map
        (32, 16, 16, 1, 3), (32, 32, 16, 1, 3), (64, 64, 16, 4, 3),
        (128, 128, 16, 8, 3),
    ),
    "kernel_grad": (
        (16, 64, 16, 2, 3), (16, 16, 16, 1, 3), (16, 128, 16, 4, 3), (16, 32, 16, 1, 3),
        (16, 64, 32, 2, 3), (16, 64, 64, 4, 3), (16, 128, 128, 8, 3),
    ),
}  # fmt: skip
HALF = {
    "forward": (
        (32, 32, 16, 1, 3), (32, 32, 32, 1, 3), (64, 32, 64, 4, 3),
        (128, 64, 256, 8, 2),
    ),
    "input_grad": (
        (32, 16, 32, 1, 3), (32, 32, 32, 1, 3), (64, 64, 32, 4, 3),
        (128, 256, 64, 8, 2),
    ),
    "kernel_grad": (
        (32, 64, 16, 2, 3), (32, 32, 32, 1, 3), (32, 64, 64, 4, 3),
        (64, 128, 256, 8, 2),
    ),
}  # fmt: skip


HALF["windows"] = HALF["input_grad"]


def few_weights(layer: Layer) -> bool:
    """Whether a tap has few enough weights for positions to be the lanes."""
    return layer.channels * layer.filters <= FEW


TF32X3_FROM = 64
"""From this number of terms on, three TensorFloat-32 products keep the forward error bound.

A float32 is the sum of two TensorFloat-32 numbers within ``2^-22`` of it (11 significand bits each,
rounded to nearest), and of the four products that of the two small ones is left out. So a product
is off by at most ``2^-22 + 2^-22 + 2^-22 = 12 u`` of its size, with ``u = 2^-24``, before it is
added. Sums run over three lists of products, of which two are ``2^-11`` as large as the first and
count for little. NVIDIA's matrix units add four or more products at a time, aligned to the largest
and cut to no fewer than two bits beyond float32 (Fasi, Higham, Mikaitis, Pranesh, "Numerical
behavior of NVIDIA tensor cores", PeerJ Computer Science 7:e330, 2021), and cut once more as the
sum is written back: ``5 * 2^-2 u + 2 u`` for four products, under ``0.82 u`` a product. So for n
products the error is at most ``(0.82 n + 12.1) u`` times the sum of their sizes, and the bound
``(n + 2) u`` admits that from ``n = 57``. The next power of two leaves room for what differs
between chips.
"""


def refused_tf32x3(layer: Layer, tile: Tile) -> str | None:
    """Why three products of TensorFloat-32 are not taken, or None where they keep the bound."""
    if layer.dtype != "float32":
        return f"it is for float32, not {layer.dtype}"
    if layer.map == "kernel_grad":
        return "never in sums over a batch"
    if summed(layer) < TF32X3_FROM:
        return f"sums of {summed(layer)} products, of {TF32X3_FROM} on it keeps the error bound"
    return None if tile.family in ("tiles", "windows") else "this tile has no dots"


def summed(layer: Layer) -> int:
    """Number of products in one element of the result, where it has most."""
    if layer.map == "forward":
        return layer.terms
    windows = 1
    for axis in layer.axes:
        windows *= -(-axis.kernel // (axis.stride // axis.gcd))
    return windows * layer.filters


@lru_cache(maxsize=4096)
def estimated(layer: Layer) -> Tile:
    """The tile with the shortest estimate among those whose figures are kept."""
    from lcmulti_triton.estimate import estimate
    from lcmulti_triton.kept import figures_of

    options = candidates(layer)
    if options[0].family not in ("tiles", "windows"):
        return options[0]
    best, least = options[0], float("inf")
    for tile in options:
        found = figures_of(layer.map, layer.dtype, tile)
        seconds = estimate(layer, tile, found).seconds if found else float("inf")
        if seconds < least:
            best, least = tile, seconds
    return best


def nominal(layer: Layer) -> Layer:
    """A layer with the same weights at each position, but a typical size and batch.

    So the choice, and what is compiled, depends on neither the size nor the batch.
    """
    most = {1: 784, 2: 28, 3: 12, 4: 6}[len(layer.axes)]
    axes = tuple(
        axis
        if axis.out == 1
        else axis._replace(out=most, low=0, size=(most - 1) * axis.stride + _extent(axis))
        for axis in layer.axes
    )
    batch = next((size for size in BATCHES if layer.batch <= size), 2 * BATCHES[-1])
    return layer._replace(axes=axes, batch=32 if batch == BATCHES[-1] else batch)


def _extent(axis: Axis) -> int:
    return (axis.kernel - 1) * axis.dilation + 1


BATCHES = (1, THIN, 64)
"""Largest batch of each class. A layer is compiled once for each class of its batches."""


def candidates(layer: Layer) -> list[Tile]:
    """Every tile that serves a map of a layer; it does not depend on the sizes of the layer."""
    families = _lanes(layer) if few_weights(layer) else []
    if layer.batch <= THIN:
        families += _thin(layer)
    return families + _dots(layer)


def smallest(layer: Layer) -> Tile:
    """The tile that takes the fewest registers and the least shared memory."""
    return min(candidates(layer), key=lambda tile: tile.samples * tile.terms * tile.filters)


def power(least: int, n: int, most: int) -> int:
    """The smallest power of two that is at least *n*, within bounds."""
    return min(max(1 << (n - 1).bit_length(), least), most)


def _lanes(layer: Layer) -> list[Tile]:
    samples = power(1, layer.batch, 8)
    if layer.map == "kernel_grad":
        return [Tile("lanes", samples, 64, power(1, layer.filters, FEW), 2, 1)]
    columns = power(1, layer.filters if layer.map == "forward" else layer.channels, FEW)
    return [Tile("lanes", samples, 64, columns, 2, 2)]


def _thin(layer: Layer) -> list[Tile]:
    samples = 1 if layer.batch == 1 else THIN
    filters = power(1, layer.filters, 32)
    if layer.map == "kernel_grad":
        return [Tile("thin", 1, power(1, layer.terms, 32), filters, 1, 2)]
    if layer.map == "forward":
        # All products of a step are held in registers: 64 for each thread.
        return [Tile("thin", samples, power(1, layer.terms, 64 // samples), filters, 1, 2)]
    length = layer.terms if layer.never_meets else layer.channels
    name = "thin windows" if layer.never_meets else "thin"
    return [Tile(name, samples, power(1, length, 16), power(1, layer.filters, 16), 1, 2)]


def _dots(layer: Layer) -> list[Tile]:
    """Limit tiles to the size of the layer, but to at least 16 along sides of a dot."""
    windows = layer.map == "input_grad" and layer.never_meets
    terms = layer.channels if layer.map == "input_grad" and not windows else layer.terms
    sides = [power(16, n, 256) for n in (layer.batch, terms, layer.filters)]
    shapes = (HALF if layer.itemsize == 2 else WIDE)["windows" if windows else layer.map]
    summed = {"forward": 1, "input_grad": 2, "kernel_grad": 0}[layer.map]  # may be cut short
    found = [
        Tile("windows" if windows else "tiles", *shape)
        for shape in shapes
        if all(a <= b for i, (a, b) in enumerate(zip(shape, sides)) if i != summed)  # noqa: B905
    ]
    return found or [Tile("windows" if windows else "tiles", *shapes[0])]
