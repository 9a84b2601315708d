"""Which tile a map is cut into, of those that can serve it."""

from __future__ import annotations

from lcmulti_triton.layer import Layer, Tile

__all__ = ["candidates", "few_weights", "first_choice"]

FEW = 8
"""Channels times filters up to which positions are the lanes: a sector of float32."""

THIN = 8
"""Samples up to which filters are the lanes and nothing is a dot, which pads samples to 16."""

# (samples, terms or channels, filters, warps, stages). Sums of half types are held in float32, so
# that a tile of them is as large in registers; they come from memory twice as wide, and a step
# of theirs is a matrix instruction for which shorter tiles would be mostly waiting.
WIDE = {
    "forward": (
        (32, 16, 16, 1, 3), (16, 16, 16, 1, 3), (32, 16, 32, 1, 3), (64, 16, 64, 4, 3),
        (128, 16, 128, 8, 3),
    ),
    "input_grad": (
        (32, 16, 16, 1, 3), (16, 16, 16, 1, 3), (32, 32, 16, 1, 3), (64, 64, 16, 4, 3),
        (128, 128, 16, 8, 3),
    ),
    "kernel_grad": (
        (16, 64, 16, 2, 3), (16, 16, 16, 1, 3), (16, 128, 16, 4, 3), (16, 32, 16, 1, 3), (16, 64, 32, 2, 3),
        (16, 64, 64, 4, 3), (16, 128, 128, 8, 3),
    ),
}  # fmt: skip
HALF = {
    "forward": (
        (32, 32, 16, 1, 3), (16, 32, 16, 1, 3), (32, 32, 32, 1, 3), (64, 32, 64, 4, 3),
        (128, 64, 256, 8, 3),
    ),
    "input_grad": (
        (32, 16, 32, 1, 3), (16, 16, 16, 1, 3), (32, 32, 32, 1, 3), (64, 64, 32, 4, 3),
        (128, 256, 64, 8, 3),
    ),
    "kernel_grad": (
        (32, 64, 16, 2, 3), (16, 16, 16, 1, 3), (32, 32, 32, 1, 3), (32, 64, 64, 4, 3),
        (64, 128, 256, 8, 3),
    ),
}  # fmt: skip


def few_weights(layer: Layer) -> bool:
    """Whether a tap has so few weights that positions are the lanes."""
    return layer.channels * layer.filters <= FEW


def chosen(layer: Layer, device: int | None, settings: tuple[str, str]) -> tuple[Tile, str]:
    """The tile, and the precision of float32 products."""
    return first_choice(layer), "ieee"


def candidates(layer: Layer) -> list[Tile]:
    """Every tile that serves a map of a layer; how large its sides are in it decides nothing."""
    families = _lanes(layer) if few_weights(layer) else []
    if layer.batch <= THIN or (layer.map == "kernel_grad" and layer.batch <= 16):
        families += _thin(layer)
    return families + _dots(layer)


def first_choice(layer: Layer) -> Tile:
    """A tile that serves, before any is measured."""
    return candidates(layer)[0]


def power(least: int, n: int, most: int) -> int:
    """The power of two that holds *n*, within bounds."""
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
        return [Tile("thin", samples, power(1, layer.terms, 16), filters, 1, 2)]
    length = layer.terms if layer.never_meets else layer.channels
    name = "thin windows" if layer.never_meets else "thin"
    return [Tile(name, samples, power(1, length, 16), power(1, layer.filters, 16), 1, 2)]


def _dots(layer: Layer) -> list[Tile]:
    """Tiles no larger than what they cut but where a dot, at least 16 along each side, is."""
    windows = layer.map == "input_grad" and layer.never_meets
    terms = layer.channels if layer.map == "input_grad" and not windows else layer.terms
    sides = [power(16, n, 256) for n in (layer.batch, terms, layer.filters)]
    shapes = (HALF if layer.itemsize == 2 else WIDE)[layer.map]
    summed = {"forward": 1, "input_grad": 2, "kernel_grad": 0}[layer.map]  # may be cut short
    found = [
        Tile("windows" if windows else "tiles", *shape)
        for shape in shapes
        if all(a <= b for i, (a, b) in enumerate(zip(shape, sides)) if i != summed)  # noqa: B905
    ]
    return found or [Tile("windows" if windows else "tiles", *shapes[1])]
