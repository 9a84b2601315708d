"""The PyTorch backend: conversions, facts about tensors, and derivatives."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lcmulti.choosing.framework import ARGUMENTS
from lcmulti.operations.neighbours import CosineMaps, Link
from lcmulti.plugins.contract import (
    Facts,
    Implementation,
    ImplementationEntry,
    Map,
    Operation,
    Resources,
)
from lcmulti_torch import tracing
from lcmulti_torch.derivatives import ClosedMap
from lcmulti_torch.memory import require_dense, require_memory
from lcmulti_torch.padding import take
from lcmulti_torch.precision import refuse_rounding
from lcmulti_torch.symbolic import is_proxy, recorded
from lcmulti_torch.watched import PLAIN, is_transformed

if TYPE_CHECKING:
    from lcmulti.weights.spread import Held

_NAMES = {
    getattr(torch, name): name
    for name in ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
}
_DEVICES = {"cuda": "gpu", "mps": "gpu", "xpu": "gpu"}


_leaves: list[Callable[..., Any]] = []
_allowed: set[int] = set()


def _allow_in_graph(number: int) -> None:
    """Make one of `_leaves` a leaf for Dynamo, if Dynamo is imported: the import takes seconds."""
    if number not in _allowed and "torch._dynamo" in sys.modules:
        torch.compiler.allow_in_graph(_leaves[number])
        _allowed.add(number)


# With this mark, Dynamo calls the function while tracing, before it reaches the leaf.
_allow_in_graph._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _dtensor() -> Any:
    """The class `DTensor`; None if it is not imported."""
    return getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)


class TorchBackend:
    """`lcmulti.backend.Backend` for PyTorch."""

    def prepare(self, arrays: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Apply autocast, as PyTorch's convolutions do: every dtype but float64 is cast."""
        for argument, each in zip(ARGUMENTS, arrays, strict=True):
            if each is not None:
                require_dense(argument, each)
        kind = arrays[0].device.type
        if kind == "meta" or not torch.is_autocast_enabled(kind):
            return arrays
        dtype = torch.get_autocast_dtype(kind)
        for argument, each in zip(ARGUMENTS, arrays, strict=True):
            if each is not None and not is_transformed(each):
                require_memory(argument, each)
        return tuple(
            each.to(dtype)
            if each is not None and each.is_floating_point() and each.dtype != torch.float64
            else each
            for each in arrays
        )

    def read(self, variable: Any) -> Tensor:
        """See `Backend.read`; a variable of Keras holds a parameter."""
        parameter: Tensor = variable.value
        return parameter

    def spread(self, operation: str, arrays: Sequence[Tensor]) -> Callable[..., Any] | None:
        """The function that runs an operation on DTensors, or on proxies of `torch.fx`.

        None if there are only tensors of this process.
        """
        if PLAIN.issuperset(map(type, arrays)):
            return None
        if any(map(is_proxy, arrays)):
            return recorded(operation)
        if _dtensor() not in map(type, arrays):
            return None
        from lcmulti_torch.parallel.operations import OPERATIONS

        return OPERATIONS.get(operation)

    def held(self, array: Tensor) -> Held | None:
        """The part of a DTensor that this process writes; None for a local tensor."""
        if type(array) is not _dtensor():
            return None
        from lcmulti_torch.parallel.files import held

        return held(array)

    def facts(self, array: Tensor, batched: bool = False) -> Facts:
        """See `Backend.facts`; a symbolic size other than the batch becomes a constant.

        Raises
        ------
        FreedMemoryError
        """
        transformed = is_transformed(array)
        require_dense("array", array)
        if not transformed:
            require_memory("array", array)
        shape = tuple(array.shape)
        if transformed:
            unknown = batched and isinstance(shape[0], torch.SymInt)
            # Under `torch.jit.trace` sizes are tensors.
            sizes = tuple(map(int, shape[1:] if unknown else shape))
            shape = (None, *sizes) if unknown else sizes
        dtype, kind = array.dtype, array.device.type
        return Facts(shape, _NAMES.get(dtype) or str(dtype), _DEVICES.get(kind, kind), transformed)

    def from_numpy(self, array: np.ndarray, like: Tensor | None = None) -> Tensor:
        """Copy to the device of *like*, or to the default device if that has memory."""
        return self.adopt(array.copy(order="C"), like)  # a writable copy without negative strides

    def adopt(self, array: np.ndarray, like: Tensor | None = None) -> Tensor:
        """As `from_numpy`, for a new array that nobody else uses; its memory may be kept."""
        device = torch.get_default_device() if like is None else like.device
        if like is None and device.type == "meta":
            device = torch.device("cpu")
        # NumPy and PyTorch share no bfloat16, so the bits go through int16.
        if array.dtype.name == "bfloat16":
            return torch.from_numpy(array.view(np.int16)).to(device).view(torch.bfloat16)
        return torch.from_numpy(array).to(device)

    def to_numpy(self, array: Tensor) -> np.ndarray:
        """Copy to host memory."""
        array = array.detach().cpu().resolve_conj().resolve_neg()
        if array.dtype == torch.bfloat16:
            import ml_dtypes

            bits: np.ndarray = array.contiguous().view(torch.int16).numpy()
            return bits.view(ml_dtypes.bfloat16)
        result: np.ndarray = array.numpy()
        return result

    def on(self, device: str) -> AbstractContextManager[Any]:
        """A context that changes the default device; of several accelerators, to the current."""
        return torch.device(torch.accelerator.current_accelerator() if device == "gpu" else device)

    def move_axis(self, array: Tensor, source: int, destination: int) -> Tensor:
        """A view."""
        return array.movedim(source, destination)

    def take(self, array: Tensor, indices: np.ndarray, axis: int) -> Tensor:
        """See `Backend.take`; channels that lie apart stay so."""
        return take(array, indices, axis)

    def add(self, y: Tensor, bias: Tensor) -> Tensor:
        """See `Backend.add`; PyTorch's own sums of half types are held in float32."""
        return y + bias

    def einsum(self, subscripts: str, *arrays: Tensor) -> Tensor:
        """See `Backend.einsum`; never autocast, for `prepare` has done that."""
        refuse_rounding(arrays[0])
        kind, dtype = arrays[0].device.type, arrays[0].dtype
        if dtype in (torch.float16, torch.bfloat16):
            arrays = tuple(each.float() for each in arrays)
        if kind == "meta" or not torch.is_autocast_enabled(kind):
            return torch.einsum(subscripts, *arrays).to(dtype)
        with torch.autocast(kind, enabled=False):
            return torch.einsum(subscripts, *arrays).to(dtype)

    def pair_products(self, kernel: Tensor, pairs: Any) -> list[Tensor]:
        """See `lcmulti_torch.pairs`."""
        from lcmulti_torch.pairs import pair_products

        return pair_products(kernel, pairs)

    def neighbour_cosines(
        self,
        maps: CosineMaps,
        kernel: Tensor,
        bias: Tensor | None,
        links: tuple[Link, ...],
        resources: Resources,
    ) -> Tensor:
        """See `lcmulti_torch.cosines`."""
        from lcmulti_torch.cosines import neighbour_cosines

        return neighbour_cosines(maps, kernel, bias, links, resources)

    def close(
        self, implementation: Implementation, entry: ImplementationEntry, name: Map = "forward"
    ) -> Operation:
        """See `lcmulti_torch.derivatives`."""
        return ClosedMap(implementation, name)

    def opaque(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Make *function* a leaf for Dynamo, which cannot trace caches; AOTAutograd traces it."""
        number = len(_leaves)
        _leaves.append(function)

        def call(*arguments: Any) -> Any:
            _allow_in_graph(number)
            return tracing.run(function, *arguments)

        return call

    def devices(self) -> list[str]:
        """The names of the CPU and of each accelerator."""
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return ["cpu", *names, *(["mps"] if torch.backends.mps.is_available() else [])]

    def vjp(
        self, function: Callable[..., Any], arrays: tuple[Tensor, ...], cotangent: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """By `torch.autograd.grad`; complex cotangents follow lcmulti's convention.

        PyTorch computes the conjugate of the gradient of ``sum(conj(cotangent) * value)``. So the
        cotangent and the gradients are conjugated, which gives the transpose of the Jacobian.
        """
        # Within `jvp`, `torch.autograd.grad` is not allowed.
        if torch._C._are_functorch_transforms_active():
            value, pull_back = torch.func.vjp(function, *arrays)
            grads = pull_back(cotangent.conj())
        else:
            nested = any(each.requires_grad for each in (*arrays, cotangent))
            leaves = tuple(
                each if each.requires_grad else each.detach().requires_grad_() for each in arrays
            )
            value = function(*leaves)
            grads = torch.autograd.grad(value, leaves, cotangent.conj(), create_graph=nested)
            value = value if nested else value.detach()
        return value, tuple(each.conj().resolve_conj() for each in grads)

    def jvp(
        self, function: Callable[..., Any], arrays: tuple[Tensor, ...], tangents: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        """By `torch.func.jvp`."""
        value, tangent = torch.func.jvp(function, arrays, tangents)
        return value, tangent


backend = TorchBackend()
