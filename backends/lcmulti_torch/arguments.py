"""Arguments and inputs in PyTorch's words: their types, names, checks and errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lcmulti.errors import ArgumentError, ArgumentTypeError, ShapeError, described
from lcmulti.geometry.arguments import integer, per_axis
from lcmulti.geometry.formats import channels_and_size, in_other_format
from lcmulti.geometry.of_call import samples_error

__all__ = [
    "MISSING", "NAMES", "Padding", "Sizes", "in_torchs_words", "optional_rank", "refuse_samples",
    "sample_shape", "sizes_of_input", "with_batch",
]  # fmt: skip

Sizes = int | Sequence[int]
"""One number for all spatial axes, or one for each."""

Padding = str | Sizes | Sequence[tuple[int, int]]
"""As in `lcmulti.local_conv`."""

MISSING: Any = None
"""Default of ``input_size``, so that its absence gives a better error than Python's."""

NAMES = {"x": "input", "kernel": "weight", "strides": "stride"}
"""PyTorch's names of the arguments of `lcmulti.local_conv`."""


def in_torchs_words(error: ArgumentError) -> ArgumentError:
    """The same error about the arguments by PyTorch's names."""
    expected = error.expected.replace("as x ", "as input ").replace("with x ", "with input ")
    name = NAMES.get(error.argument, error.argument)
    return type(error)(name, expected, error.received)


def with_batch(run: Callable[[Tensor], Tensor], x: Tensor, ndim: int) -> Tensor:
    """Run on *x*, which may be a single sample without a batch axis, as in PyTorch."""
    if not isinstance(x, Tensor):
        raise ArgumentTypeError("input", "a torch.Tensor", x)
    if x.dim() == ndim + 2:
        return run(x)
    if x.dim() != ndim + 1:
        shape = tuple(x.shape)
        raise ShapeError(
            "input", f"rank {ndim + 2}, or {ndim + 1} without a batch", described(str(shape))
        )
    y = run(x.unsqueeze(0))
    if torch._C._is_tracing():  # what traces, an ONNX exporter for one, may not know `_unsafe_view`
        return y.squeeze(0)
    # Nobody else uses y, so the result need not be a view of it to autograd.
    result: Tensor = torch.ops.aten._unsafe_view(y, y.shape[1:])
    return result


def optional_rank(rank: Any) -> int | None:
    """Check a rank; None means full rank."""
    return None if rank is None else integer("rank", rank, 1)


def sample_shape(channels: int, size: tuple[int, ...], data_format: str) -> tuple[int, ...]:
    """Shape of one sample."""
    return (channels, *size) if data_format == "channels_first" else (*size, channels)


def sizes_of_input(input_size: Any, layer: nn.Module, ndim: int) -> tuple[int, ...]:
    """The spatial size of the input; the error for a missing one says where to get it."""
    if input_size is None:
        name = type(layer).__name__
        lazy = "" if "Transpose" in name else f"; Lazy{name} learns it from the first batch"
        what = "the spatial size of what comes in, for each position has weights of its own"
        raise ArgumentTypeError("input_size", what + lazy, described("none"))
    return per_axis("input_size", input_size, ndim)


def refuse_samples(shape: tuple[int, ...], wanted: tuple[int, ...], data_format: str) -> None:
    """Raise for samples of another shape than the weights of a layer were made for."""
    channels, size = channels_and_size(shape, data_format)
    advice = f"for these build a layer with in_channels={channels}, input_size={size}"
    if shape == in_other_format(wanted, data_format):
        first = data_format == "channels_first"
        other = "channels_last" if first else "channels_first"
        moved = "(-1, 1)" if first else "(1, -1)"
        advice = f"these are {other}: x.movedim{moved}, or data_format={other!r}"
    raise samples_error("input", shape, wanted, advice)
