"""Compile a kernel, once for each layer, and start it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lcmulti.dtypes import DTYPES
from lcmulti.plugins.contract import Map
from lcmulti_triton.kernels.forward import forward
from lcmulti_triton.kernels.input_grad import input_grad
from lcmulti_triton.kernels.kernel_grad import kernel_grad
from lcmulti_triton.layer import Layer, Tile
from lcmulti_triton.variant import arguments, constants, programs, signature

__all__ = ["KERNELS", "NAMES", "Launch", "compile_for", "is_started", "on", "start_of"]

KERNELS: dict[Map, Any] = {"forward": forward, "input_grad": input_grad, "kernel_grad": kernel_grad}
NAMES = {getattr(torch, name): name for name in DTYPES if not name.startswith("complex")}

Launch = Callable[[Any, Any, Any], None]

_interpreter = threading.Lock()  # it patches Triton's language while it runs


def start_of(
    layer: Layer, tile: Tile, precision: str, device: int | None, is_aligned: bool
) -> Launch:
    """The function that starts a map of a layer with a tile, on a device or in the interpreter."""
    count = programs(layer, tile)
    passed, known = arguments(layer, tile), constants(layer, tile, precision)
    if count == 0:
        return _nothing
    if device is None:
        return _interpreted(layer.map, count, passed, known)
    with on(device):  # Triton compiles for the current device, and loads the kernel onto it
        run = compiled(layer, tile, precision, is_aligned, device)[count, 1, 1]
    return _started(run, device, (*passed, *known.values()))


def _nothing(a: Tensor, b: Tensor, result: Any) -> None:
    """Start no program, because the result is empty."""


def _interpreted(map_: Map, count: int, passed: tuple[int, ...], known: dict[str, Any]) -> Launch:
    kernel = KERNELS[map_]

    def start(a: Tensor, b: Tensor, result: Any) -> None:
        with _interpreter:
            kernel[(count,)](a.detach(), b.detach(), result, *passed, **known)

    return start


def _started(run: Any, device: int, rest: tuple[Any, ...]) -> Launch:
    stream, current = _stream(), torch.cuda.current_device

    def start(a: Tensor, b: Tensor, result: Any) -> None:
        if current() == device:
            run(a, b, result, *rest, stream=stream(device))
        else:
            with torch.cuda.device(device):
                run(a, b, result, *rest, stream=stream(device))

    return start


def _stream() -> Callable[[int], int]:
    """The function that returns PyTorch's current stream on a device."""
    return triton.runtime.driver.active.get_current_stream


def compiled(layer: Layer, tile: Tile, precision: str, is_aligned: bool, device: int) -> Any:
    """The kernel, compiled for a device, which is the current one."""
    key = (layer.map, layer.dtype, layer.wide, tile.warps, tile.stages, is_aligned)
    known = constants(layer, tile, precision)
    return _compiled(key, tuple(known.items()), layer, _target(), device)


def is_started(device: int | None) -> bool:
    """Whether Triton knows the GPU of this number; None is the interpreter, which needs none."""
    try:
        with on(device):
            return device is None or bool(_target())
    except Exception:  # no C compiler, or no driver
        return False


def _target() -> GPUTarget:
    return triton.runtime.driver.active.get_current_target()


def on(device: int | None) -> AbstractContextManager[Any]:
    """A context that makes a GPU the current one; None is the CPU."""
    is_current = device is None or torch.cuda.current_device() == device
    return nullcontext() if is_current else torch.cuda.device(device)


_kernels: dict[Any, Any] = {}


def _compiled(key: Any, known: Any, layer: Layer, target: GPUTarget, device: int) -> Any:
    """The compiled kernel; sizes and the batch are not part of the cache key."""
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
    """Compile a kernel for *target*, which this machine need not have."""
    kernel = KERNELS[layer.map]
    aligned = {(index,): [["tt.divisibility", 16]] for index in range(3 if is_aligned else 0)}
    source = ASTSource(kernel, signature(layer, known), known, aligned)
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
    return triton.compile(source, target=target, options=options)
