"""The shared algorithm in PyTorch's operations, which every transform can see through."""

from __future__ import annotations

import torch
from torch import Tensor

from lcmulti.algorithms.composed import Composed
from lcmulti.plugins.contract import Problem
from lcmulti_torch.watched import is_transformed

HALF = (torch.float16, torch.bfloat16)
FEW_COLUMNS = 12


class TorchOps:
    """`lcmulti.composed.ArrayOps` for PyTorch."""

    def reshape(self, array: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See `ArrayOps`."""
        return array.reshape(shape)

    def permute(self, array: Tensor, axes: tuple[int, ...]) -> Tensor:
        """See `ArrayOps`."""
        return array.permute(axes)

    def stack(self, arrays: list[Tensor], axis: int) -> Tensor:
        """See `ArrayOps`."""
        return torch.stack(arrays, axis)

    def pad(self, array: Tensor, pairs: tuple[tuple[int, int], ...]) -> Tensor:
        """See `ArrayOps`."""
        while pairs and not any(pairs[0]):  # PyTorch 2.6 refuses to pad no samples by nothing
            pairs = pairs[1:]
        if not pairs:
            return array
        return torch.nn.functional.pad(array, [n for pair in reversed(pairs) for n in pair])

    def matmul(
        self, a: Tensor, b: Tensor, transpose_a: bool = False, transpose_b: bool = False
    ) -> Tensor:
        """See `ArrayOps`; never autocast, for the accumulator dtype is chosen already."""
        a = a.transpose(1, 2) if transpose_a else a  # exporters do not support `mT`
        b = b.transpose(1, 2) if transpose_b else b
        kind = a.device.type
        if kind != "meta" and torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                return self.product(a, b)
        return self.product(a, b)

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """Product of two stacks of matrices, in the layouts that PyTorch multiplies fastest."""
        if a.device.type != "cpu" or is_transformed(a):
            return torch.bmm(a, b)
        a, b = for_mkl(a), for_mkl(b)
        # With a narrow right factor, MKL computes the transposed product up to four times as fast.
        return torch.bmm(b.mT, a.mT).mT if b.shape[2] < FEW_COLUMNS else torch.bmm(a, b)

    def widen(self, array: Tensor) -> Tensor:
        """See `ArrayOps`."""
        return array.float() if array.dtype in HALF else array

    def narrow(self, array: Tensor, like: Tensor) -> Tensor:
        """See `ArrayOps`."""
        return array.to(like.dtype)


def for_mkl(array: Tensor) -> Tensor:
    """The array in a layout that PyTorch passes to MKL as one batch, not matrix by matrix."""
    _, rows, columns = array.shape
    _, down, across = array.stride()
    if (across == 1 and down >= columns) or (down == 1 and across >= rows):
        return array
    return array.contiguous()


class TorchComposed(Composed):
    """`Composed` for PyTorch: only slices, stack, reshape and matrix products."""

    def cut(self, array: Tensor, index: tuple[slice, ...]) -> Tensor:
        """Slice. Indexing with a whole slice gives an alias, which batched gradients refuse."""
        for axis, each in enumerate(index):
            if each != slice(None):
                array = torch.ops.aten.slice(array, axis, each.start, each.stop, each.step or 1)
        return array

    def workspace(self, problem: Problem) -> int:
        """See `Composed.workspace`; meta tensors hold nothing."""
        return 0 if problem.device == "meta" else super().workspace(problem)


composed = TorchComposed(TorchOps())
