"""Decide how a map is computed: the tile, the precision, and the reason for it."""

from __future__ import annotations

from typing import NamedTuple

import torch

from lcmulti_triton import tuned
from lcmulti_triton.choice import admits_tf32x3, estimated, nominal
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
        Where the tile comes from, as text.
    """

    tile: Tile
    precision: str
    source: str


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
    on_amd = device is not None and torch.version.hip is not None  # Triton has it only for NVIDIA
    if precision == "tf32x3" and (on_amd or not admits_tf32x3(layer, tile)):
        precision = "ieee"
    return Choice(tile, precision, source)
