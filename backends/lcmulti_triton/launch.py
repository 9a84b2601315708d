"""From tensors to a launch: the part that is prepared once, and the part of every call.

A warm call looks up its geometry, allocates the result and starts the kernel. It does not compile,
wait or allocate anything else, so it may be captured in a CUDA graph.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from triton.runtime.errors import OutOfResources

from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Map
from lcmulti_triton import failing
from lcmulti_triton.choice import smallest
from lcmulti_triton.decision import decided
from lcmulti_triton.layer import Layer, Tile, layer_of
from lcmulti_triton.starting import NAMES, Launch, is_started, start_of

__all__ = ["Ready", "prepared", "result_of"]


class Ready(NamedTuple):
    """One map of one geometry, ready to run.

    Parameters
    ----------
    shape, strides : tuple of int
        Shape and strides of the result.
    clear : bool
        Whether the result must be filled with zeros first.
    start : callable
        ``(a, b, result)``; computes the result.
    layer, tile
        The computed layer, and its tile.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    clear: bool
    start: Launch
    layer: Layer
    tile: Tile


@lru_cache(maxsize=4096)
def prepared(
    map_: Map,
    spec: LocalConvSpec,
    dtype: torch.dtype,
    device: int | None,
    batch: int,
    a: tuple[int, ...],
    b: tuple[int, ...],
    is_aligned: bool,
    settings: tuple[str, str],
) -> Ready | None:
    """Prepare calls of *map_* on arrays of these strides; *device* is None for the CPU.

    None if Triton cannot compile a kernel for such a layer here: `failing` has told why.

    Parameters
    ----------
    a, b : tuple of int
        Strides of the two arrays; those of weights are not used.
    is_aligned : bool
        Whether both arrays begin at a multiple of 16 bytes.
    settings : tuple of str
        ``precision`` and ``tiles`` of the settings.
    """
    shape, strides = result_of(map_, spec, batch, a)
    x, y = {"forward": (a, strides), "input_grad": (strides, a), "kernel_grad": (a, b)}[map_]
    layer = layer_of(map_, spec, NAMES[dtype], batch, x, y)
    kind = failing.kind_of(layer, device, settings)
    if failing.reason_for(kind):
        return None
    try:
        tile, start = _compiled(layer, device, is_aligned, settings)
    except Exception as error:  # of the compiler or the driver; another implementation can serve
        failing.note(kind, error, is_started(device))
        return None
    clear = tile.family.endswith("windows") and not layer.covers
    return Ready(shape, strides, clear, start, layer, tile)


def _compiled(
    layer: Layer, device: int | None, is_aligned: bool, settings: tuple[str, str]
) -> tuple[Tile, Launch]:
    chosen = decided(layer, device, settings)
    try:
        start = start_of(layer, chosen.tile, chosen.precision, device, is_aligned)
    except OutOfResources:  # this GPU has less memory than those the tiles were made for
        tile = smallest(layer)
        return tile, start_of(layer, tile, "ieee", device, is_aligned)
    return chosen.tile, start


def result_of(
    map_: Map, spec: LocalConvSpec, batch: int, a: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape and strides of the result of a map; its memory order is that of the array *a*."""
    if map_ == "kernel_grad":
        return spec.kernel_shape, _strides(spec.kernel_shape)
    *size, channels = spec.output_shape if map_ == "forward" else spec.input_shape
    came = spec.in_channels if map_ == "forward" else spec.filters
    if a[-1] == 1 and not (a[1] == 1 and came > 1):
        shape = (batch, *size, channels)
        return shape, _strides(shape)
    sample, first, *rest = _strides((batch, channels, *size))
    return (batch, *size, channels), (sample, *rest, first)


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides = [1]
    for length in reversed(shape[1:]):
        strides.append(strides[-1] * max(length, 1))
    return tuple(reversed(strides))
