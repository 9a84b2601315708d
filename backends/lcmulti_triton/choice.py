"""Which tile a map is cut into."""

from __future__ import annotations

from lcmulti_triton.layer import Layer, Tile

__all__ = ["few_weights", "first_choice"]

FEW = 8
THIN = 8


def few_weights(layer: Layer) -> bool:
    """Whether a tap has so few weights that positions are the lanes."""
    return layer.channels * layer.filters <= FEW


def power(least: int, n: int, most: int) -> int:
    """The power of two that holds *n*, within bounds."""
    return min(max(1 << (n - 1).bit_length(), least), most)


def chosen(layer: Layer, device: int | None, settings: tuple[str, str]) -> tuple[Tile, str]:
    """The tile, and the precision of float32 products."""
    return first_choice(layer), "ieee"


def first_choice(layer: Layer) -> Tile:
    """A tile that serves, before any is measured."""
    if few_weights(layer):
        return _lanes(layer)
    thin = layer.batch <= THIN
    samples = (1 if layer.batch == 1 else THIN) if thin else (16 if layer.batch <= 16 else 32)
    if layer.map == "kernel_grad":
        if thin:
            return Tile("thin", 1, power(1, layer.terms, 32), power(1, layer.filters, 32), 1, 1)
        terms, filters = power(16, layer.terms, 32), power(16, layer.filters, 32)
        return Tile("tiles", 16, terms, filters, 1, 2)
    if layer.map == "forward":
        if thin:
            filters = power(1, layer.filters, 32)
            return Tile("thin", samples, power(1, layer.terms, 16), filters, 1, 2)
        return Tile("tiles", samples, 16, power(16, layer.filters, 32), 1, 2)
    windows = layer.never_meets and not few_weights(layer)
    filters = power(1, layer.filters, 16)
    length = layer.terms if windows else layer.channels
    name = "windows" if windows else "tiles"
    if thin:
        name = "thin windows" if windows else "thin"
        return Tile(name, samples, power(1, length, 16), filters, 1, 2)
    return Tile(name, samples, power(16, length, 32), 16, 1, 2)


def _lanes(layer: Layer) -> Tile:
    samples = power(1, layer.batch, 4)
    filters = power(1, layer.filters, 8)
    if layer.map == "kernel_grad":
        return Tile("lanes", 64, power(1, layer.terms, 16), filters, 4, 1)
    return Tile(
        "lanes", samples, 64, filters if layer.map == "forward" else power(1, layer.channels, 8),
        4, 1,
    )  # fmt: skip
