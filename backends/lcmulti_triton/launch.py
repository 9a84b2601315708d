"""From tensors to a launch: what is prepared once, and what every call does.

A warm call looks its geometry up, asks for memory and starts the kernel; it neither compiles nor
waits, and allocates nothing but the result, so that it may be captured in a CUDA graph.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lcmulti.dtypes import DTYPES
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Map
from lcmulti_triton import choice
from lcmulti_triton.kernels.forward import forward
from lcmulti_triton.kernels.input_grad import input_grad
from lcmulti_triton.kernels.kernel_grad import kernel_grad
from lcmulti_triton.layer import Layer, Tile, layer_of
from lcmulti_triton.variant import arguments, constants, programs, signature

__all__ = ["KERNELS", "Ready", "compiled", "prepared"]

KERNELS = {"forward": forward, "input_grad": input_grad, "kernel_grad": kernel_grad}
NAMES = {getattr(torch, name): name for name in DTYPES if not name.startswith("complex")}

Launch = Callable[[Any, Any, Any], None]

_interpreter = threading.Lock()  # it patches Triton's language as it runs


class Ready(NamedTuple):
    """A map of one geometry, ready to run.

    Parameters
    ----------
    shape, strides : tuple of int
        Of the result.
    clear : bool
        Whether the result is to be filled with zeros first.
    start : callable
        ``(a, b, result)``; computes the result.
    layer, tile
        What is computed, and how.
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
) -> Ready:
    """What a call of *map_* on arrays of these strides needs; *device* is None for the CPU.

    Parameters
    ----------
    a, b : tuple of int
        Strides of the two arrays; those of weights are not looked at.
    is_aligned : bool
        Whether both begin at a multiple of 16 bytes.
    settings : tuple of str
        Precision of float32, and where tiles come from.
    """
    shape, strides = result_of(map_, spec, batch, a)
    x, y = {"forward": (a, strides), "input_grad": (strides, a), "kernel_grad": (a, b)}[map_]
    layer = layer_of(map_, spec, NAMES[dtype], batch, x, y)
    tile, precision = choice.chosen(layer, device, settings)
    clear = tile.family.endswith("windows") and not layer.covers
    start = start_of(layer, tile, precision, device, is_aligned)
    return Ready(shape, strides, clear, start, layer, tile)


def start_of(
    layer: Layer, tile: Tile, precision: str, device: int | None, is_aligned: bool
) -> Launch:
    """What starts a map of a layer, cut in this way, on a device or in the interpreter."""
    count = programs(layer, tile)
    passed, known = arguments(layer, tile), constants(layer, tile, precision)
    if count == 0:
        return _nothing
    if device is None:
        return _interpreted(layer.map, count, passed, known)
    kernel = compiled(layer, tile, precision, is_aligned, device)
    return _started(kernel, device, count, (*passed, *known.values()))


def result_of(
    map_: Map, spec: LocalConvSpec, batch: int, a: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape and strides of what a map makes of an array of strides *a*: it lies as that does."""
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


def _nothing(a: Any, b: Any, result: Any) -> None:
    """Start no program: there is nothing to write."""


def _interpreted(map_: Map, count: int, passed: tuple[int, ...], known: dict[str, Any]) -> Launch:
    kernel = KERNELS[map_]

    def start(a: Any, b: Any, result: Any) -> None:
        with _interpreter:
            kernel[(count,)](a.detach(), b.detach(), result, *passed, **known)

    return start


def _started(kernel: Any, device: int, count: int, rest: tuple[Any, ...]) -> Launch:
    run, stream, current = kernel[count, 1, 1], _stream(), torch.cuda.current_device

    def start(a: Any, b: Any, result: Any) -> None:
        if current() == device:
            run(a, b, result, *rest, stream=stream(device))
        else:
            with torch.cuda.device(device):
                run(a, b, result, *rest, stream=stream(device))

    return start


def _stream() -> Callable[[int], int]:
    """What tells the number of PyTorch's current stream on a device."""
    return triton.runtime.driver.active.get_current_stream  # type: ignore[no-any-return]


def compiled(layer: Layer, tile: Tile, precision: str, is_aligned: bool, device: int) -> Any:
    """The kernel, compiled for a device and loaded there."""
    with torch.cuda.device(device):
        target = triton.runtime.driver.active.get_current_target()
        key = (layer.map, layer.dtype, layer.wide, tile.warps, tile.stages, is_aligned)
        known = constants(layer, tile, precision)
        return _compiled(key, tuple(known.items()), layer, target, device)


_kernels: dict[Any, Any] = {}


def _compiled(key: Any, known: Any, layer: Layer, target: GPUTarget, device: int) -> Any:
    """By what it is compiled for alone: sizes and the batch are no part of it."""
    whole = (key, known, target.backend, target.arch, device)
    if whole not in _kernels:
        *_, warps, stages, is_aligned = key
        _kernels[whole] = compile_for(target, layer, dict(known), warps, stages, is_aligned)
    return _kernels[whole]


def compile_for(
    target: GPUTarget,
    layer: Layer,
    known: dict[str, Any],
    warps: int,
    stages: int,
    is_aligned: bool = True,
) -> Any:
    """Compile a kernel for *target*, which need not be here."""
    kernel = KERNELS[layer.map]
    aligned = {(index,): [["tt.divisibility", 16]] for index in range(3 if is_aligned else 0)}
    source = ASTSource(kernel, signature(layer, known), known, aligned)
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
    return triton.compile(source, target=target, options=options)
