"""The memory of tensors: its order, its owner, and whether it still exists."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from lcmulti.errors import ArgumentTypeError, FreedMemoryError, described

MOST_AXES_OF_A_FORMAT = 5
"""The memory formats of PyTorch by number of axes."""


def to_last(array: Tensor) -> Tensor:
    """``(N, channels, *size)`` as ``(N, *size, channels)``; exporters need non-negative axes."""
    return array.movedim(1, array.dim() - 1)


def to_first(array: Tensor) -> Tensor:
    """``(N, *size, channels)`` as ``(N, channels, *size)``."""
    return array.movedim(array.dim() - 1, 1)


def is_channels_first(array: Tensor) -> bool:
    """Whether ``(N, *size, channels)`` is channels first in memory."""
    # With one position both orders are the same.
    apart = array.stride(1) == 1 and array.shape[-1] > 1
    return apart or array.stride(-1) != 1


def are_channels_apart(array: Tensor, channels_first: bool) -> bool:
    """`is_channels_first` of an array in the caller's data format, without making a view."""
    if not channels_first:
        return is_channels_first(array)
    return (array.stride(2) == 1 and array.shape[1] > 1) or array.stride(1) != 1


def laid_out(y: Tensor, channels_apart: bool, channels_first: bool) -> Tensor:
    """``(N, *size, channels)`` in an order of memory, and with its axes in a data format.

    PyTorch's convolutions lay results out as their input is, so that people may call ``view``.
    """
    if not channels_apart:
        y = y.contiguous()
        return to_first(y) if channels_first else y
    y = to_first(y).contiguous()
    return y if channels_first else to_last(y)


def owned(array: Tensor) -> Tensor:
    """*array*, which is new and dense, as the only owner of its memory.

    A view is a view to autograd even if nobody else uses its memory: in-place operations on it are
    refused, or do not run the hooks of the tensor.
    """
    if array._is_view():
        array = array.data
    whole = not array.storage_offset() and array.untyped_storage().nbytes() == array.nbytes
    # A part of a larger array would keep all of that alive.
    return array if whole else array.clone()


def summed(array: Tensor, axes: Sequence[int]) -> Tensor:
    """The sum over some axes, taken in the order of the memory.

    PyTorch goes over the axes as they are given: of a view with channels last of memory with
    channels first, `torch.sum` over the batch takes ten times as long and more.
    """
    order = sorted(range(array.dim()), key=array.stride, reverse=True)
    total = array.permute(order).sum([order.index(axis) for axis in axes])
    kept = [axis for axis in order if axis not in axes]
    return total.permute([kept.index(axis) for axis in sorted(kept)])


def require_dense(argument: str, array: Tensor) -> None:
    """Raise if a tensor does not have an element for each place."""
    if array.layout is not torch.strided or array.is_nested:
        raise ArgumentTypeError(argument, "a dense tensor", described(str(array.layout)))


def require_memory(argument: str, array: Tensor) -> None:
    """Raise if the storage of a tensor was freed, or is smaller than its elements need.

    Sharded training frees weights in this way between their uses. Many operations of PyTorch raise
    an error then, but others read memory that is no longer theirs.

    Raises
    ------
    FreedMemoryError
    """
    there = array.untyped_storage().nbytes()
    if array.is_contiguous():
        elements = array.numel()
    else:
        steps = zip(array.shape, array.stride(), strict=True)
        elements = 1 + sum((size - 1) * step for size, step in steps)
    needed = (array.storage_offset() + elements) * array.element_size()
    if there < needed and array.numel():
        raise FreedMemoryError(
            argument,
            f"a storage of at least {needed:,} bytes",
            described(f"one of {there:,}, which was freed or cut short"),
        )


def beyond_formats(fn: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """Apply *fn* to a tensor seen with more axes than any memory format has."""
    most = (1,) * (MOST_AXES_OF_A_FORMAT + 1)
    if is_lazy(tensor):
        try:
            return fn(tensor)
        except ValueError:  # it asks for the number of axes, which there is none of yet
            like = fn(torch.empty(most, dtype=tensor.dtype, device=tensor.device))
            return tensor.to(like.device, like.dtype)
    if tensor.dim() > MOST_AXES_OF_A_FORMAT:
        return fn(tensor)
    return fn(tensor.reshape(*most[tensor.dim() :], *tensor.shape)).reshape(tensor.shape)
