"""Compute one map by a kernel, with NaN around its arrays, and compare it with the reference."""

from __future__ import annotations

from math import prod

import numpy as np
import torch
from lcmulti_triton.decision import decided
from lcmulti_triton.launch import result_of
from lcmulti_triton.layer import Tile, layer_of
from lcmulti_triton.starting import start_of

from lcmulti.algorithms import reference
from lcmulti.conformance.bounds import ETA, covering_windows, dot_bound
from lcmulti.dtypes import DTYPES

MARGIN = 4096
MAPS = ("forward", "input_grad", "kernel_grad")
REFERENCE = {name: getattr(reference, name) for name in MAPS}

# The smallest tiles of each family. Results do not depend on the size.
TILES = {
    "tiles": {name: Tile("tiles", 16, 16, 16, 1, 1) for name in MAPS},
    "thin": {
        "forward": Tile("thin", 4, 8, 4, 1, 1),
        "input_grad": Tile("thin", 4, 4, 8, 1, 1),
        "kernel_grad": Tile("thin", 1, 16, 4, 1, 1),
    },
    "lanes": {
        "forward": Tile("lanes", 2, 16, 4, 1, 1),
        "input_grad": Tile("lanes", 2, 16, 4, 1, 1),
        "kernel_grad": Tile("lanes", 8, 4, 4, 1, 1),
    },
    "windows": {"input_grad": Tile("windows", 16, 16, 16, 1, 1)},
    "thin windows": {"input_grad": Tile("thin windows", 4, 8, 4, 1, 1)},
}


def operands(spec, batch, dtype="float64", seed=0):
    """Draw ``x``, the kernel and ``dy`` as tensors of *dtype*."""
    generator = np.random.default_rng(seed)
    shapes = (batch, *spec.input_shape), spec.kernel_shape, (batch, *spec.output_shape)
    drawn = (torch.from_numpy(generator.standard_normal(shape)) for shape in shapes)
    return [each.to(getattr(torch, dtype)) for each in drawn]


def pair_of(map_, arrays):
    x, kernel, dy = arrays
    return {"forward": (x, kernel), "input_grad": (dy, kernel), "kernel_grad": (x, dy)}[map_]


def between_margins(array):
    """Copy *array* with its strides into memory that is NaN before and behind it."""
    reach = sum((n - 1) * step for n, step in zip(array.shape, array.stride(), strict=True)) + 1
    size = max(reach, 0) if array.numel() else 0
    whole = torch.full((size + 2 * MARGIN,), float("nan"), dtype=array.dtype)
    view = whole.as_strided(array.shape, array.stride(), MARGIN)
    once = tuple(slice(1) if step == 0 else slice(None) for step in array.stride())
    view[once].copy_(array[once])
    return view, whole


def compute(map_, spec, a, b, watch, tile=None, precision="ieee"):
    """Compute a map of tensors, and check the margins of the result."""
    spec = spec.computed()
    dtype = str(a.dtype).removeprefix("torch.")
    shape, strides = result_of(map_, spec, len(a), a.stride())
    (a, _), (b, _) = between_margins(a), between_margins(b)
    result, around = between_margins(torch.empty_strided(shape, strides, dtype=a.dtype).fill_(7))
    x, y = {"forward": (a, result), "input_grad": (result, a), "kernel_grad": (a, b)}[map_]
    layer = layer_of(map_, spec, dtype, len(a), x.stride(), y.stride())
    if tile is None:
        tile, precision, *_ = decided(layer, None, ("ieee", "pinned"))
    if tile.family.endswith("windows") and not layer.covers:
        result.zero_()
    watch.hold_to((a, b), result)
    start_of(layer, tile, precision, None, True)(a, b, result)
    assert around[:MARGIN].isnan().all() and around[-MARGIN:].isnan().all(), "wrote into a margin"
    watch.written = None
    return result.clone()


def limits(map_, spec, a, b, dtype):
    """Return the reference's values, and the bound of the rounding error of each."""
    spec = spec.computed()
    wide = [each.double().numpy() for each in (a, b)]
    expected = REFERENCE[map_](*wide, spec)
    magnitude = REFERENCE[map_](*map(np.abs, wide), spec)
    axes = zip(spec.kernel_size, spec.strides, spec.dilation, strict=True)
    windows = prod(covering_windows(*axis) for axis in axes)
    sharing = prod(spec.output_size) // prod(spec.positions_shape)
    count = {
        "forward": spec.terms,
        "input_grad": windows * (spec.filters // spec.groups),
        "kernel_grad": len(a) * sharing,
    }[map_]
    limit = dot_bound(count, magnitude, DTYPES[DTYPES[dtype].accumulator].roundoff, False)
    if DTYPES[dtype].is_half:
        limit = limit + DTYPES[dtype].roundoff * (np.abs(expected) + limit) + ETA[dtype]
    return expected, limit + dot_bound(count, magnitude, DTYPES["float64"].roundoff, False)


def check(map_, spec, arrays, watch, tile=None, dtype="float64"):
    """Compute a map and hold it to the bound; return the result."""
    a, b = pair_of(map_, arrays)
    found = compute(map_, spec, a, b, watch, tile)
    expected, limit = limits(map_, spec, a, b, dtype)
    error = np.abs(found.double().numpy() - expected)
    assert not np.isnan(error).any(), f"{map_}: NaN"
    assert (error <= limit).all(), f"{map_}: {(error / limit).max()} of the bound"
    return found
