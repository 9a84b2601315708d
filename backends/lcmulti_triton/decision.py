"""Decide how a map is computed: the tile, the precision, and the reason for it."""

from __future__ import annotations

from typing import NamedTuple

import torch

from lcmulti_triton import tuned
from lcmulti_triton.choice import estimated, nominal, refused_tf32x3
from lcmulti_triton.layer import Layer, Tile

__all__ = ["Choice", "decided"]


class Choice(NamedTuple):
    """How a map is computed.

    Parameters
    ----------
    tile : Tile
    precision : {"ieee", "tf32x3"}
        Precision of float32 products.
    source : str
        Where the tile came from, for people to read.
    refused : str or None
        Why ``"tf32x3"`` was asked for and is not taken.
    """

    tile: Tile
    precision: str
    source: str
    refused: str | None = None

    def __str__(self) -> str:
        taken = ", tf32x3" if self.precision == "tf32x3" else ""
        refused = f"; no tf32x3: {self.refused}" if self.refused else ""
        return f"{self.tile}{taken} ({self.source}{refused})"


def decided(layer: Layer, device: int | None, settings: tuple[str, str]) -> Choice:
    """Decide how a call is computed.

    Parameters
    ----------
    device : int or None
        Number of the GPU; None for the interpreter.
    settings : tuple of str
        ``precision`` and ``tiles`` of `lcmulti.choosing.settings.Settings`.
    """
    precision, tiles = settings
    tile, source = None, ""
    if tiles != "pinned" and device is not None:
        tile, source = tuned.look_up(layer, device, tiles == "measured")
    if tile is None:
        tile, source = estimated(nominal(layer)), "estimated for an H200"
    refused = None
    if precision == "tf32x3":
        on_amd = device is not None and torch.version.hip is not None
        refused = "Triton has it for NVIDIA's alone" if on_amd else refused_tf32x3(layer, tile)
    return Choice(tile, "ieee" if refused else precision, source, refused)
