"""The shared algorithm in PyTorch's operations: composed for transforms, blocked for speed."""

from __future__ import annotations

from math import prod
from typing import Any

import torch

from lcmulti.backend import Facts, Problem, Resources
from lcmulti.blocks import Blocked
from lcmulti.composed import UNKNOWN_BATCH, Composed, axis_taps
from lcmulti.dtypes import DTYPES
from lcmulti.spec import LocalConvSpec
from lcmulti_torch.rules import is_transformed

_HALF = (torch.float16, torch.bfloat16)
_FEW_COLUMNS = 12


class TorchOps:
    """`lcmulti.composed.ArrayOps` for PyTorch."""

    def reshape(self, array: Any, shape: tuple[int, ...]) -> Any:
        """See `ArrayOps`."""
        return array.reshape(shape)

    def permute(self, array: Any, axes: tuple[int, ...]) -> Any:
        """See `ArrayOps`."""
        return array.permute(axes)

    def stack(self, arrays: list[Any], axis: int) -> Any:
        """See `ArrayOps`."""
        return torch.stack(arrays, axis)

    def pad(self, array: Any, pairs: tuple[tuple[int, int], ...]) -> Any:
        """See `ArrayOps`."""
        if not any(map(any, pairs)):
            return array
        return torch.nn.functional.pad(array, [n for pair in reversed(pairs) for n in pair])

    def matmul(self, a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False) -> Any:
        """See `ArrayOps`; never autocast, for the accumulator dtype is chosen already."""
        a = a.mT if transpose_a else a
        b = b.mT if transpose_b else b
        kind = a.device.type
        if kind != "meta" and torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                return torch.bmm(a, b)
        if kind != "cpu" or is_transformed(a):
            return torch.bmm(a, b)
        a, b = _for_mkl(a), _for_mkl(b)
        # MKL runs the transposed product of a narrow right factor up to four times faster.
        return torch.bmm(b.mT, a.mT).mT if b.shape[2] < _FEW_COLUMNS else torch.bmm(a, b)

    def widen(self, array: Any) -> Any:
        """See `ArrayOps`."""
        return array.float() if array.dtype in _HALF else array

    def narrow(self, array: Any, like: Any) -> Any:
        """See `ArrayOps`."""
        return array.to(like.dtype)


def _for_mkl(array: Any) -> Any:
    """A layout PyTorch hands to MKL whole; others it copies and multiplies one by one."""
    _, rows, columns = array.shape
    _, down, across = array.stride()
    if (across == 1 and down >= columns) or (down == 1 and across >= rows):
        return array
    return array.contiguous()


def _positions_first(dy: Any, resources: Resources) -> Any:
    """``(N, *O, F)`` with positions first in memory, if it lies channels first.

    PyTorch transposes one matrix quickly, where block by block it would gather single numbers.
    """
    size, planes = dy.numel() * dy.element_size(), dy.movedim(-1, 1)
    fits = 0 < size <= resources.max_workspace // 4
    if dy.stride(-1) == 1 or not (fits and planes.is_contiguous()):
        return dy
    moved = planes.reshape(dy.shape[0] * dy.shape[-1], -1).t().contiguous()
    return moved.view(*dy.shape[1:-1], dy.shape[0], dy.shape[-1]).movedim(-2, 0)


class TorchComposed(Composed):
    """Nothing but slices, stack, reshape and matrix products."""

    def cut(self, array: Any, index: tuple[slice, ...]) -> Any:
        """Indexing returns an alias where a slice is whole, which batched gradients refuse."""
        for axis, each in enumerate(index):
            if each != slice(None):
                array = torch.ops.aten.slice(array, axis, each.start, each.stop, each.step or 1)
        return array

    def workspace(self, problem: Problem) -> int:
        """See `Composed.workspace`; meta tensors hold nothing."""
        return 0 if problem.device == "meta" else super().workspace(problem)


class TorchBlocked(Blocked):
    """Blocks with strided views for windows and in-place sums."""

    def decline(self, problem: Problem) -> str | None:
        """Meta tensors have no memory to bound."""
        return "there is no data to work through" if problem.device == "meta" else None

    def workspace(self, problem: Problem) -> int:
        """Also an output, or its gradient, with positions first in memory."""
        spec, limit = problem.spec, problem.resources.max_workspace
        batch = UNKNOWN_BATCH if problem.batch is None else problem.batch
        size = batch * prod(spec.output_shape) * DTYPES[problem.dtype].itemsize
        return super().workspace(problem) + (size if size <= limit // 4 else 0)

    def new(self, shape: tuple[int, ...], like: Any, wide: bool, zeros: bool) -> Any:
        """See `Blocked.new`."""
        dtype = torch.float32 if wide and like.dtype in _HALF else like.dtype
        make = torch.zeros if zeros else torch.empty
        return make(shape, dtype=dtype, device=like.device)

    def facts(self, array: Any) -> Facts:
        """See `Blocked.facts`."""
        return Facts(tuple(array.shape), str(array.dtype)[6:], array.device.type)

    def forward(self, x: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `Blocked.forward`; the result lies in memory as *x* does."""
        y = super().forward(x, kernel, spec, resources)
        if y.is_contiguous():
            return y
        planes = y.movedim(0, -2).reshape(-1, y.shape[0] * spec.filters).t().contiguous()
        return planes.view(y.shape[0], spec.filters, *spec.output_size).movedim(1, -1)

    def output(self, x: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `Blocked.output`; positions come first in memory if *x* lies channels first."""
        size = x.shape[0] * prod(spec.output_shape) * x.element_size()
        if x.stride(-1) == 1 or not 0 < size <= resources.max_workspace // 4:
            return super().output(x, spec, resources)
        shape = (*spec.output_size, x.shape[0], spec.filters)
        return self.new(shape, x, wide=False, zeros=False).movedim(spec.ndim, 0)

    def input_grad(self, dy: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `Blocked.input_grad`."""
        return super().input_grad(_positions_first(dy, resources), kernel, spec, resources)

    def kernel_grad(self, x: Any, dy: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `Blocked.kernel_grad`."""
        return super().kernel_grad(x, _positions_first(dy, resources), spec, resources)

    def windows(self, x: Any, spec: LocalConvSpec) -> Any:
        """A view: nothing is copied until it is put in matrix order.

        Only an input with its channels apart (channels first) is brought together before: a
        block of it is small, and its patches show every element many times.
        """
        x = x.contiguous()
        batch, *steps, channel = x.stride()
        outer = (step * s for step, s in zip(steps, spec.strides, strict=True))
        taps = (step * d for step, d in zip(steps, spec.dilation, strict=True))
        shape = (len(x), *spec.output_size, *spec.kernel_size, x.shape[-1])
        return x.as_strided(shape, (batch, *outer, *taps, channel))

    def put_kernel_grad(
        self, out: Any, x: Any, dy: Any, spec: LocalConvSpec, resources: Resources
    ) -> None:
        """Multiply right into the gradient, the largest array of all, where its layout allows."""
        direct = spec.groups == 1 and spec.filters >= _FEW_COLUMNS and out.dtype == x.dtype
        if not (direct and out.is_contiguous()):
            return super().put_kernel_grad(out, x, dy, spec, resources)
        patches, dy = self._patch_matrices(x, spec), self._by_position(dy, (), spec)
        torch.bmm(patches.mT, _for_mkl(dy), out=out.view(-1, spec.terms, spec.filters))
        return None

    def fold(self, patches: Any, spec: LocalConvSpec) -> Any:
        """One axis at a time, in place; positions lie before samples in memory, as in patches."""
        positions = tuple(range(spec.ndim))
        for axis in reversed(positions):
            batch, *size, channels = patches.shape
            size[axis] = spec.input_size[axis]
            del size[-1]
            shape = (*size[: spec.ndim], batch, *size[spec.ndim :], channels)
            total = patches.new_zeros(shape).movedim(spec.ndim, 0)
            for tap, seen in enumerate(axis_taps(spec, axis)):
                total[seen] += patches[..., tap, :]
            patches = total
        return patches


composed = TorchComposed(TorchOps())
blocked = TorchBlocked(TorchOps())
