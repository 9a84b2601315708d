"""The door for PyTorch: data pointers, and opaque operations for its compiler.

In eager mode a map is called with the addresses of its tensors, and the backend provides the
derivatives. A compiler traces with tensors that have no data. For it, each map is an opaque
operation of `torch.library`, whose gradients are the other two. Every other transform (forward AD,
``vmap``, ``torch.func``, export, a dispatch mode) gets the composed implementation, which it can
see through.

If PyTorch uses GNU's OpenMP, and the same number of threads is asked for, its threads compute. They
wait for the next operation in a loop: so they begin at once, and would slow other threads down.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lcmulti_torch.derivatives import register
from lcmulti_torch.memory import is_channels_first, require_memory, to_last
from lcmulti_torch.watched import is_only_compiled, is_transformed
from torch import Tensor

from lcmulti import LocalConvSpec, plugins
from lcmulti.errors import ArgumentTypeError, described
from lcmulti.operations.neighbours import Link
from lcmulti.plugins.contract import Map, Problem, Resources
from lcmulti_native.cosines import SUMS, Cosines, compute_cosines, cosine_call
from lcmulti_native.library import (
    DTYPES,
    MAPS,
    OPERANDS,
    Geometry,
    Native,
    Steps,
    compute,
    contiguous,
    geometry,
    idle_lanes,
    library,
    packed,
    require_operands,
)

_DTYPES = [getattr(torch, name) for name in DTYPES]
_NAMES = dict(zip(_DTYPES, DTYPES, strict=True))


class TorchNative(Cosines, Native):
    """`lcmulti.backend.Implementation` for PyTorch, in any memory layout."""

    def decline(self, problem: Problem) -> str | None:
        """Under a transform, serves only a compiler."""
        if problem.transformed and not is_only_compiled():
            return "only compilers can take it as an opaque operation"
        return idle_lanes(problem) or super().decline(problem)

    def threads(self, resources: Resources) -> int | None:
        """As many as PyTorch's own operations use, unless configured.

        A cached plan has counted the workspace of the number of threads at that time.
        """
        return resources.threads or torch.get_num_threads()

    def run(
        self, map_: Map, a: Tensor, b: Tensor, spec: LocalConvSpec, resources: Resources
    ) -> Any:
        """See `lcmulti_native.library.Native.run`."""
        return _map(map_, a, b, spec, resources)

    def run_cosines(
        self, map_: int, a: Tensor, b: Tensor, links: tuple[Link, ...], resources: Resources
    ) -> Tensor:
        """See `lcmulti_native.cosines.Cosines.run_cosines`; the tensors are ordinary ones."""
        for argument, each in (("kernel", a), ("bias", b)):
            require_memory(argument, each)
        a, b = (each.resolve_neg().contiguous() for each in (a, b))
        result = a.new_empty((4, *b.shape) if map_ == SUMS else a.shape)
        threads = self.threads(resources)
        call = cosine_call(map_, tuple(a.shape), _NAMES[a.dtype], threads, links)
        lender = _openmp() if threads == torch.get_num_threads() else None
        compute_cosines(call, a.data_ptr(), b.data_ptr(), result.data_ptr(), lender)
        return result


def _map(map_: Map, a: Tensor, b: Tensor, spec: LocalConvSpec, resources: Resources) -> Any:
    if not is_transformed(a, b):
        require_operands(map_, a, b, spec)
        arguments = spec, len(a), _NAMES[a.dtype], implementation.threads(resources)
        return _run(map_, geometry, arguments, a, b, _result(map_, a, spec))
    if is_only_compiled():
        call = packed(map_, spec, 0, _NAMES[a.dtype], resources.threads)
        return _operations[map_](a, b, call)
    # Planned for a compiler, but called within another transform of the same shapes.
    composed = plugins.load_implementation("torch", "composed")
    return getattr(composed, map_)(a, b, spec, resources)


def _result(map_: Map, a: Tensor, spec: LocalConvSpec) -> Tensor:
    """A new tensor for the result, with the memory order of *a*; weights are contiguous."""
    if map_ == "kernel_grad":
        return a.new_empty(spec.kernel_shape)
    *size, channels = spec.output_shape if map_ == "forward" else spec.input_shape
    if is_channels_first(a):
        return to_last(a.new_empty((len(a), channels, *size)))
    return a.new_empty((len(a), *size, channels))


def _run(
    map_: Map, make: Any, arguments: tuple[Any, ...], a: Tensor, b: Tensor, result: Any
) -> Tensor:
    """Compute *result* from the addresses of ordinary tensors."""
    for argument, each in zip(OPERANDS[map_], (a, b), strict=True):
        if not each.is_cpu:
            raise ArgumentTypeError(argument, "a tensor on the CPU", described(str(each.device)))
        require_memory(argument, each)
    a, a_step = _readable(a)
    if map_ == "kernel_grad":
        b, other = _readable(b)
    else:
        b, other = b.resolve_neg().contiguous(), _steps(result)
    call = make(*arguments, *((other, a_step) if map_ == "input_grad" else (a_step, other)))
    lender = _openmp() if call.threads == torch.get_num_threads() else None
    compute(call, MAPS[map_], a.data_ptr(), b.data_ptr(), result.data_ptr(), lender)
    return result


@cache
def _openmp() -> int | None:
    """Find ``GOMP_parallel`` of the OpenMP runtime that PyTorch has loaded, if it is GNU's."""
    for path in Path(torch.__file__).parent.glob("lib/libgomp*.so*"):
        try:
            loaded = ctypes.CDLL(str(path), os.RTLD_NOLOAD)
        except OSError:
            continue
        return ctypes.cast(loaded.GOMP_parallel, ctypes.c_void_p).value
    return None


def _readable(tensor: Tensor) -> tuple[Any, Steps | None]:
    """A tensor that the library can read, and its strides unless it is contiguous."""
    if tensor.is_neg():
        tensor = tensor.resolve_neg()
    return tensor, _steps(tensor)


def _steps(tensor: Tensor) -> Steps | None:
    """Strides in elements, channels before the axes; None if the tensor is contiguous."""
    if tensor.is_contiguous():
        return None
    steps = tensor.stride()
    return (steps[0], steps[-1], *steps[1:-1])


def _shape(map_: Map, call: Geometry, batch: Any) -> tuple[Any, ...]:
    x, kernel, y = call.shapes()
    if map_ == "kernel_grad":
        return kernel
    return (batch, *(y if map_ == "forward" else x)[1:])


def _operation(map_: Map) -> Any:
    """The map as an operation of `torch.library`; *call* is that of `lcmulti_native.library`."""

    def made_of(call: list[int]) -> Geometry:
        return Geometry.from_buffer(np.asarray(call[1:], np.int64).data)

    def with_steps(made: Geometry, x_step: Any, dy_step: Any) -> Geometry:
        axes = made.axes
        whole = slice(axes + 2)
        made.x_step[whole] = x_step or contiguous(made.input[:axes], made.channels)
        made.dy_step[whole] = dy_step or contiguous(made.output[:axes], made.filters)
        return made

    def run(a: Tensor, b: Tensor, call: list[int]) -> Tensor:
        made = made_of(call)
        made.batch = len(a)
        made.threads = made.threads or torch.get_num_threads()
        x, kernel, y = made.shapes()
        expected = {"forward": (x, kernel), "input_grad": (y, kernel), "kernel_grad": (x, y)}[map_]
        # The call may come from a file, so it must be checked against the arrays.
        if (a.shape, b.shape) != expected or not a.dtype == b.dtype == _DTYPES[made.dtype]:
            raise ValueError("lcmulti: arrays other than the operation was made for")
        result = a.new_empty(_shape(map_, made, len(a)))
        return _run(map_, with_steps, (made,), a, b, result)

    operation = torch.library.custom_op(f"lcmulti_native::{map_}", run, mutates_args=())

    @operation.register_fake
    def _(a: Tensor, b: Tensor, call: list[int]) -> Any:
        return a.new_empty(_shape(map_, made_of(call), a.shape[0]))

    register(operation, map_, _operations)
    return operation


library()  # Loaded now: in a forked child, it could not know that PyTorch's threads are gone.
_operations: dict[Map, Any] = {}
_operations.update((map_, _operation(map_)) for map_ in MAPS)
implementation = TorchNative()
