"""The C library, through ctypes. ``include/lcmulti_native.h`` documents its functions."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from lcmulti import LocalConvSpec
from lcmulti.errors import ConfigError, DtypeError, ShapeError, described
from lcmulti.plugins.contract import Map, Problem, Resources
from lcmulti.types import Array

__version__ = "0.1.0"
MAX_AXES = 6
DTYPES = ("float32", "float64", "bfloat16", "float16")
MAPS: dict[Map, int] = {"forward": 0, "input_grad": 1, "kernel_grad": 2}
OPERANDS: dict[Map, tuple[str, str]] = {
    "forward": ("x", "kernel"),
    "input_grad": ("dy", "kernel"),
    "kernel_grad": ("x", "dy"),
}
"""The two arrays that each map takes."""

NO_MEMORY = 3
ISA = "LCMULTI_NATIVE_ISA"
ISAS = ("amx", "avx512bf16", "avx512", "avx2", "neon", "plain")
OF_BFLOAT16 = ("amx", "avx512bf16")
"""Instruction sets for bfloat16 only; with these, other types use AVX-512."""

PATH = Path(__file__).with_name("lcmulti_native" + (".dll" if sys.platform == "win32" else ".so"))

_Axes = ctypes.c_int64 * MAX_AXES
_Steps = ctypes.c_int64 * (MAX_AXES + 2)
Steps = tuple[int, ...]


class Geometry(ctypes.Structure):
    """The struct ``lcmulti_geometry``; all fields are int64."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("dtype", "threads", "axes")),
        *((name, ctypes.c_int64) for name in ("batch", "channels", "filters", "groups")),
        *((name, _Axes) for name in ("input", "output", "kernel", "stride", "dilation")),
        *((name, _Axes) for name in ("pad", "shared")),
        *((name, _Steps) for name in ("x_step", "dy_step")),
    )

    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Shapes of ``x``, ``kernel`` and ``y``."""
        axes = self.axes
        positions = (1 if shared else n for n, shared in zip(self.output, self.shared, strict=True))
        return (
            (self.batch, *self.input[:axes], self.channels),
            (*[*positions][:axes], *self.kernel[:axes], self.channels // self.groups, self.filters),
            (self.batch, *self.output[:axes], self.filters),
        )


@cache
def library() -> Any:
    """Load the library, once.

    Raises
    ------
    OSError
        If the library is missing or built for another machine.
    ImportError
        If the library has another version than this module.
    ConfigError
        If the variable that selects an instruction set has an unknown value.
    """
    wish = os.environ.get(ISA)
    if wish is not None and wish not in ISAS:
        known = ", ".join(map(repr, ISAS))
        raise ConfigError(ISA, f"one of {known}, or not set at all", wish)
    loaded = ctypes.CDLL(str(PATH))  # ctypes releases the GIL during a call
    loaded.lcmulti_geometry_size.restype = ctypes.c_int64
    ours = loaded.lcmulti_geometry_size() == ctypes.sizeof(Geometry)
    if not ours or not hasattr(loaded, "lcmulti_cosines"):
        raise ImportError(f"{PATH} is of another version; reinstall lcmulti-native")
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    loaded.lcmulti_compute_on.argtypes = (pointer, pointer, ctypes.c_int, *[pointer] * 3)
    loaded.lcmulti_cosines.argtypes = (pointer, pointer, size, *[pointer] * 3)
    loaded.lcmulti_workspace.argtypes = (pointer, ctypes.c_int)
    for name in ("lcmulti_workspace", "lcmulti_threads"):
        getattr(loaded, name).restype = size
    for name in ("lcmulti_isa", "lcmulti_status_text"):
        getattr(loaded, name).restype = ctypes.c_char_p
    return loaded


def isa(dtype: str) -> str:
    """The instruction set that computes in a dtype on this processor."""
    chosen: str = library().lcmulti_isa().decode()
    return "avx512" if chosen in OF_BFLOAT16 and dtype != "bfloat16" else chosen


def contiguous(size: Sequence[int], channels: int) -> Steps:
    """Strides of an array ``(batch, *size, channels)``: of batch, channels, each axis."""
    axes = tuple(channels * prod(size[axis + 1 :]) for axis in range(len(size)))
    return (channels * prod(size), 1, *axes)


def channels_first(size: Sequence[int], channels: int) -> Steps:
    """The same for an array with the memory order ``(batch, channels, *size)``."""
    axes = tuple(prod(size[axis + 1 :]) for axis in range(len(size)))
    return (channels * prod(size), prod(size), *axes)


@lru_cache(maxsize=4096)
def geometry(
    spec: LocalConvSpec,
    batch: int,
    dtype: str,
    threads: int | None,
    x_step: Steps | None = None,
    dy_step: Steps | None = None,
) -> Geometry:
    """The struct of a call; None for the strides of a contiguous array."""
    axes = range(spec.ndim)
    return Geometry(
        DTYPES.index(dtype), threads or 0, spec.ndim,
        batch, spec.in_channels, spec.filters, spec.groups,
        _Axes(*spec.input_size), _Axes(*spec.output_size), _Axes(*spec.kernel_size),
        _Axes(*spec.strides), _Axes(*spec.dilation), _Axes(*(low for low, _ in spec.padding)),
        _Axes(*(int(axis in spec.shared_axes) for axis in axes)),
        _Steps(*(x_step or contiguous(spec.input_size, spec.in_channels))),
        _Steps(*(dy_step or contiguous(spec.output_size, spec.filters))),
    )  # fmt: skip


@lru_cache(maxsize=4096)
def operand_shapes(map_: Map, spec: LocalConvSpec, batch: int) -> tuple[tuple[int, ...], ...]:
    """Shapes of the two arrays of a map."""
    shapes = {
        "x": (batch, *spec.input_size, spec.in_channels),
        "kernel": spec.kernel_shape,
        "dy": (batch, *spec.output_size, spec.filters),
    }
    return tuple(shapes[each] for each in OPERANDS[map_])


def require_operands(map_: Map, a: Any, b: Any, spec: LocalConvSpec) -> None:
    """Raise unless two arrays are those of *spec*: of addresses alone the library cannot tell.

    Raises
    ------
    ShapeError, DtypeError
    """
    expected = operand_shapes(map_, spec, len(a))
    if (a.shape, b.shape) != expected:
        for name, array, shape in zip(OPERANDS[map_], (a, b), expected, strict=True):
            if array.shape != shape:
                raise ShapeError(name, f"shape {shape}", described(str(tuple(array.shape))))
    if a.dtype != b.dtype:
        first, second = OPERANDS[map_]
        raise DtypeError(second, f"dtype {a.dtype}, as {first} has", str(b.dtype))


@lru_cache(maxsize=4096)
def packed(
    map_: Map, spec: LocalConvSpec, batch: int, dtype: str, threads: int | None
) -> list[int]:
    """A call as an attribute for frameworks: the map, then every field of the geometry."""
    fields = np.frombuffer(memoryview(geometry(spec, batch, dtype, threads)), np.int64)
    return [MAPS[map_], *map(int, fields)]


@lru_cache(maxsize=4096)
def workspace(spec: LocalConvSpec, batch: int, dtype: str, threads: int | None) -> int:
    """Workspace of the largest map in any order of channels; negative if it cannot serve."""
    if spec.ndim > MAX_AXES:
        return -1
    x_first = channels_first(spec.input_size, spec.in_channels)
    dy_first = channels_first(spec.output_size, spec.filters)
    sizes = [
        library().lcmulti_workspace(
            ctypes.byref(geometry(spec, batch, dtype, threads, *orders)), map_
        )
        for orders in product((None, x_first), (None, dy_first))
        for map_ in MAPS.values()
    ]
    return min(sizes) if min(sizes) < 0 else max(sizes)


def idle_lanes(problem: Problem) -> str | None:
    """Why a framework's own operations are faster for depthwise layers with one or two samples.

    Samples are the lanes of a vector, of which only one or two would be used.
    """
    spec = problem.spec
    if problem.batch in (1, 2) and 1 < spec.groups == spec.in_channels == spec.filters:
        return "one or two samples of a depthwise operation leave its vectors idle"
    return None


class Native:
    """The common part of all doors: the calls that are served, and their workspace."""

    def decline(self, problem: Problem) -> str | None:
        """See `lcmulti.backend.Implementation.decline`."""
        if problem.spec.ndim > MAX_AXES:
            return f"more than {MAX_AXES} spatial axes"
        if self.workspace(problem) < 0:
            return "one window is more than fits in a core's cache"
        return None

    def workspace(self, problem: Problem) -> int:
        """See `lcmulti.backend.Implementation.workspace`."""
        threads = self.threads(problem.resources)
        return workspace(problem.spec, problem.samples, problem.dtype, threads)

    def details(self, problem: Problem) -> tuple[str, ...]:
        """See `lcmulti.plugins.contract.Implementation`."""
        return (f"instruction set {isa(problem.dtype)}",)

    def hardware(self) -> str:
        """See `lcmulti.plugins.contract.Implementation`."""
        plain, half = isa("float32"), isa("bfloat16")
        return plain if plain == half else f"{plain}, {half} for bfloat16"

    def threads(self, resources: Resources) -> int | None:
        """Number of threads; None for the default of the library."""
        return resources.threads

    def run(self, map_: Map, a: Array, b: Array, spec: LocalConvSpec, resources: Resources) -> Any:
        """Compute one of `MAPS`; each door does this in the way of its framework."""
        raise NotImplementedError

    def forward(self, x: Array, kernel: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        """See `lcmulti.backend.Implementation.forward`."""
        return self.run("forward", x, kernel, spec, resources)

    def input_grad(
        self, dy: Array, kernel: Array, spec: LocalConvSpec, resources: Resources
    ) -> Array:
        """See `lcmulti.backend.Implementation.input_grad`."""
        return self.run("input_grad", dy, kernel, spec, resources)

    def kernel_grad(self, x: Array, dy: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        """See `lcmulti.backend.Implementation.kernel_grad`."""
        return self.run("kernel_grad", x, dy, spec, resources)


def compute(
    call: Geometry, map_: int, a: int, b: int, result: int, parallel: int | None = None
) -> None:
    """Run one map on three addresses. *parallel* is the address of an ``lcmulti_parallel``."""
    require_done(library().lcmulti_compute_on(parallel, ctypes.byref(call), map_, a, b, result))


def require_done(status: int) -> None:
    """Raise what a status of the library says."""
    if status == NO_MEMORY:
        raise MemoryError("lcmulti-native found no memory for its scratch space")
    if status:
        raise RuntimeError(f"lcmulti-native: {library().lcmulti_status_text(status).decode()}")
