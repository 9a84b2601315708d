"""Each map as an operation of `torch.library`, whose kernel is visible to PyTorch's compiler.

A call is passed as a list of integers, which a graph can hold: the geometry and the settings.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from lcmulti_torch.derivatives import register
from torch import Tensor
from torch.library import triton_op, wrap_triton

from lcmulti.choosing.settings import PRECISIONS, TILES
from lcmulti.geometry.fields import replace_fields
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Map, Resources
from lcmulti_triton.decision import decided
from lcmulti_triton.launch import result_of
from lcmulti_triton.layer import layer_of
from lcmulti_triton.starting import KERNELS, NAMES
from lcmulti_triton.variant import arguments, constants, programs

__all__ = ["call_of", "operations"]


def call_of(spec: LocalConvSpec, resources: Resources) -> list[int]:
    """A normalised geometry, and the settings that choose among kernels, as integers."""
    shared = [int(axis in spec.shared_axes) for axis in range(spec.ndim)]
    return [
        PRECISIONS.index(resources.precision), TILES.index(resources.tiles),
        spec.ndim, spec.in_channels, spec.filters, spec.groups,
        *spec.input_size, *spec.output_size, *spec.kernel_size, *spec.strides, *spec.dilation,
        *(low for low, _ in spec.padding), *(high for _, high in spec.padding), *shared,
    ]  # fmt: skip


def _read(call: list[int]) -> tuple[LocalConvSpec, tuple[str, str]]:
    return _spec_of(tuple(call[2:])), (PRECISIONS[call[0]], TILES[call[1]])


@lru_cache(maxsize=1024)
def _spec_of(call: tuple[int, ...]) -> LocalConvSpec:
    ndim, channels, filters, groups, *rest = call
    size, output, kernel, strides, dilation, low, high, shared = (
        tuple(rest[start : start + ndim]) for start in range(0, 8 * ndim, ndim)
    )
    plain = LocalConvSpec((*size, channels), filters, kernel, groups=groups,
                          padding=tuple(zip(low, high, strict=True)), strides=strides,
                          dilation=dilation, data_format="channels_last")  # fmt: skip
    axes = tuple(axis for axis in range(ndim) if shared[axis])
    return replace_fields(plain, output_size=output, shared_axes=axes)


def _operation(map_: Map) -> Any:
    kernel = KERNELS[map_]

    def run(a: Tensor, b: Tensor, call: list[int]) -> Tensor:
        spec, settings = _read(call)
        _check(map_, spec, a, b)
        if map_ != "kernel_grad":
            b = b.contiguous()
        batch = a.shape[0]
        shape, strides = result_of(map_, spec, batch, a.stride())
        x, y = {
            "forward": (a.stride(), strides),
            "input_grad": (strides, a.stride()),
            "kernel_grad": (a.stride(), b.stride()),
        }[map_]
        layer = layer_of(map_, spec, NAMES[a.dtype], batch, x, y)
        chosen = decided(layer, None, (settings[0], "pinned"))
        tile = chosen.tile
        result = torch.empty_strided(shape, strides, dtype=a.dtype, device=a.device)
        if tile.family.endswith("windows") and not layer.covers:
            result = result.zero_()
        passed = arguments(layer, tile)
        wrap_triton(kernel)[(programs(layer, tile),)](
            a, b, result, *passed, **constants(layer, tile, chosen.precision),
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
        return result

    operation = triton_op(f"lcmulti_triton::{map_}", run, mutates_args=())

    register(operation, map_, operations)
    return operation


def _check(map_: Map, spec: LocalConvSpec, a: Tensor, b: Tensor) -> None:
    """Raise for arrays that do not fit the call (it may come from a file): kernels do not check."""
    x, kernel, y = spec.input_shape, spec.kernel_shape, spec.output_shape
    mine, other = {"forward": (x, kernel), "input_grad": (y, kernel), "kernel_grad": (x, y)}[map_]
    theirs = b.shape[1:] if map_ == "kernel_grad" else b.shape
    if tuple(a.shape[1:]) != mine or tuple(theirs) != other or a.dtype != b.dtype:
        raise ValueError("lcmulti: arrays other than the operation was made for")


operations: dict[Map, Callable[..., Any]] = {}
operations.update((map_, _operation(map_)) for map_ in KERNELS)
