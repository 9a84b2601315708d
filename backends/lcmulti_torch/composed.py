"""The shared algorithm in PyTorch's operations, which every transform can see through."""

from __future__ import annotations

from typing import Any

import torch

from lcmulti.algorithms.composed import Composed
from lcmulti.plugins.contract import Problem
from lcmulti_torch.watched import is_transformed

HALF = (torch.float16, torch.bfloat16)
FEW_COLUMNS = 12


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
        a = a.transpose(1, 2) if transpose_a else a  # exporters do not know `mT`
        b = b.transpose(1, 2) if transpose_b else b
        kind = a.device.type
        if kind != "meta" and torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                return self.product(a, b)
        return self.product(a, b)

    def product(self, a: Any, b: Any) -> Any:
        """Product of two stacks of matrices in layouts PyTorch is quick at."""
        if a.device.type != "cpu" or is_transformed(a):
            return torch.bmm(a, b)
        a, b = for_mkl(a), for_mkl(b)
        # MKL runs the transposed product of a narrow right factor up to four times faster.
        return torch.bmm(b.mT, a.mT).mT if b.shape[2] < FEW_COLUMNS else torch.bmm(a, b)

    def widen(self, array: Any) -> Any:
        """See `ArrayOps`."""
        return array.float() if array.dtype in HALF else array

    def narrow(self, array: Any, like: Any) -> Any:
        """See `ArrayOps`."""
        return array.to(like.dtype)


def for_mkl(array: Any) -> Any:
    """A layout PyTorch hands to MKL whole; others it copies and multiplies one by one."""
    _, rows, columns = array.shape
    _, down, across = array.stride()
    if (across == 1 and down >= columns) or (down == 1 and across >= rows):
        return array
    return array.contiguous()


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


composed = TorchComposed(TorchOps())
