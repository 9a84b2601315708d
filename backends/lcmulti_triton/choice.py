"""Which tile a map is cut into, of those that can serve it."""

from __future__ import annotations

from lcmulti_triton.layer import Layer, Tile

__all__ = ["candidates", "few_weights", "first_choice"]

FEW = 8
"""Channels times filters up to which positions are the lanes: a sector of float32."""

THIN = 8
"""Samples up to which filters are the lanes and nothing is a dot, which pads samples to 16."""

# (samples, terms or channels, filters, warps, stages)
DOTS = {
    "forward": (
        (32, 16, 16, 1, 3), (16, 16, 16, 1, 3), (32, 16, 32, 1, 3), (64, 16, 32, 2, 3),
        (64, 16, 64, 4, 3), (64, 32, 64, 4, 3), (128, 32, 128, 8, 3),
    ),
    "input_grad": (
        (32, 16, 16, 1, 3), (16, 16, 16, 1, 3), (32, 32, 16, 1, 3), (64, 32, 16, 2, 3),
        (64, 64, 16, 4, 3), (64, 64, 32, 4, 3), (128, 128, 32, 8, 3),
    ),
    "kernel_grad": (
        (16, 32, 16, 1, 3), (16, 16, 16, 1, 3), (16, 32, 32, 1, 3), (16, 64, 32, 2, 3),
        (16, 64, 64, 4, 3), (32, 64, 64, 4, 3), (32, 128, 128, 8, 3),
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
    samples, filters = power(1, layer.batch, 4), power(1, layer.filters, FEW)
    if layer.map == "kernel_grad":
        return [Tile("lanes", 64, power(1, layer.terms, 16), filters, 4, 2)]
    columns = filters if layer.map == "forward" else power(1, layer.channels, FEW)
    return [Tile("lanes", samples, 64, columns, 2, 1)]


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
    """Tiles no larger than what they cut, but for one: a dot takes at least 16 along each side."""
    columns = {
        "forward": layer.filters,
        "input_grad": layer.terms if layer.never_meets else layer.channels,
        "kernel_grad": layer.filters,
    }[layer.map]
    name = "windows" if layer.map == "input_grad" and layer.never_meets else "tiles"
    found = []
    for samples, terms, filters, warps, stages in DOTS[layer.map]:
        wide = filters if layer.map == "forward" else terms
        across = filters if layer.map == "kernel_grad" else columns
        long = samples if layer.map != "kernel_grad" else 16
        if (
            max(wide, 16) <= power(16, columns if layer.map != "kernel_grad" else layer.terms, 128)
            and filters <= power(16, across if layer.map != "input_grad" else layer.filters, 128)
            and long <= power(16, layer.batch, 128)
        ):
            found.append(Tile(name, samples, terms, filters, warps, stages))
    return found
