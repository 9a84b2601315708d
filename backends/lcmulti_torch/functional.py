"""`lcmulti.local_conv` with the names, the order and the defaults of `torch.nn.functional`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import lcmulti
from lcmulti.errors import ArgumentError, ArgumentTypeError, ShapeError, described
from lcmulti_torch.symbolic import called, is_proxy

__all__ = [
    "local_conv1d",
    "local_conv2d",
    "local_conv3d",
    "local_conv_transpose1d",
    "local_conv_transpose2d",
    "local_conv_transpose3d",
]


Sizes = int | Sequence[int]
"""One number for all spatial axes, or one for each."""

Padding = str | Sizes | Sequence[tuple[int, int]]
"""As in `lcmulti.local_conv`."""

_NAMES = {"x": "input", "kernel": "weight", "strides": "stride"}
"""PyTorch's names of the arguments of `lcmulti.local_conv`."""


def in_torchs_words(error: ArgumentError) -> ArgumentError:
    """The same error about the arguments by PyTorch's names."""
    expected = error.expected.replace("as x ", "as input ").replace("with x ", "with input ")
    name = _NAMES.get(error.argument, error.argument)
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


def traced(
    operation: Callable[..., Tensor], ndim: int, *arrays: Tensor | None, **arguments: Any
) -> Tensor:
    """The node that calls an operation of `lcmulti` by its function here, if there is one."""
    function = globals().get(f"{operation.__name__}{ndim}d")
    if function is not None:
        arguments = {_NAMES.get(name, name): value for name, value in arguments.items()}
    y: Tensor = called(function or operation, *arrays, **arguments)
    return y


def _call(
    operation: Callable[..., Tensor], ndim: int, input: Tensor, weight: Tensor, layout: str,
    **arguments: Any,
) -> Tensor:  # fmt: skip
    if is_proxy(input) or is_proxy(weight):
        return traced(operation, ndim, input, weight, **arguments)
    if isinstance(weight, Tensor) and weight.dim() != 2 * ndim + 2:
        found = f"shape {tuple(weight.shape)}"
        if weight.dim() == ndim + 2:
            layer = "LocallyConnectedTranspose" if "transpose" in layout else "LocallyConnected"
            found += f", that of a convolution; lcmulti_torch.{layer}{ndim}d.from_conv takes one"
        raise ShapeError("weight", layout.removeprefix("transpose "), described(found))

    def run(x: Tensor) -> Tensor:
        try:
            return operation(x, weight, **arguments)
        except ArgumentError as error:
            raise in_torchs_words(error) from None

    return with_batch(run, input, ndim)


def _local_conv(
    ndim: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Sizes,
    padding: Padding, dilation: Sizes, groups: int, data_format: str, padding_mode: str,
    implementation: str,
) -> Tensor:  # fmt: skip
    return _call(
        lcmulti.local_conv, ndim, input, weight,
        "(*output_size, *kernel_size, in_channels // groups, out_channels)", bias=bias,
        strides=stride, padding=padding, padding_mode=padding_mode, dilation=dilation,
        groups=groups, data_format=data_format, implementation=implementation,
    )  # fmt: skip


def local_conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    data_format: str = "channels_first",
    padding_mode: str = "zeros",
    implementation: str = "auto",
) -> Tensor:
    """Locally connected 1D operation, in the argument order of `torch.nn.functional.conv1d`.

    Parameters
    ----------
    input : Tensor
        ``(N, in_channels, L)`` or ``(in_channels, L)``.
    weight : Tensor
        ``(L_out, kernel_size, in_channels // groups, out_channels)``. If ``L_out`` is 1, the weight
        is shared.
    bias : Tensor, optional
        ``(L_out, out_channels)``, or ``(1, out_channels)``.
    stride, padding, dilation, groups
        As in `torch.nn.functional.conv1d`; padding also as in `lcmulti.local_conv`.
    data_format, padding_mode, implementation
        As in `lcmulti.local_conv`.

    Returns
    -------
    Tensor
        ``(N, out_channels, L_out)`` or ``(out_channels, L_out)``.

    Raises
    ------
    LcmultiError
        As `lcmulti.local_conv`.
    """
    return _local_conv(
        1, input, weight, bias, stride, padding, dilation, groups, data_format, padding_mode,
        implementation,
    )  # fmt: skip


def local_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    data_format: str = "channels_first",
    padding_mode: str = "zeros",
    implementation: str = "auto",
) -> Tensor:
    """Locally connected 2D operation, in the argument order of `torch.nn.functional.conv2d`.

    As `local_conv1d`, with ``weight`` of shape
    ``(H_out, W_out, kH, kW, in_channels // groups, out_channels)`` and ``bias`` of shape
    ``(H_out, W_out, out_channels)``.
    """
    return _local_conv(
        2, input, weight, bias, stride, padding, dilation, groups, data_format, padding_mode,
        implementation,
    )  # fmt: skip


def local_conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    data_format: str = "channels_first",
    padding_mode: str = "zeros",
    implementation: str = "auto",
) -> Tensor:
    """Locally connected 3D operation, in the argument order of `torch.nn.functional.conv3d`.

    As `local_conv1d`, with ``weight`` of shape
    ``(D_out, H_out, W_out, kD, kH, kW, in_channels // groups, out_channels)``.
    """
    return _local_conv(
        3, input, weight, bias, stride, padding, dilation, groups, data_format, padding_mode,
        implementation,
    )  # fmt: skip


def _transpose(
    ndim: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Sizes,
    padding: Padding, output_padding: Sizes | None, groups: int, dilation: Sizes,
    data_format: str, implementation: str,
) -> Tensor:  # fmt: skip
    return _call(
        lcmulti.local_conv_transpose, ndim, input, weight,
        "transpose (*input_size, *kernel_size, out_channels // groups, in_channels)", bias=bias,
        strides=stride, padding=padding, output_padding=output_padding, dilation=dilation,
        groups=groups, data_format=data_format, implementation=implementation,
    )  # fmt: skip


def local_conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    output_padding: Sizes | None = 0,
    groups: int = 1,
    dilation: Sizes = 1,
    *,
    data_format: str = "channels_first",
    implementation: str = "auto",
) -> Tensor:
    """Transposed 1D operation, in the order of `torch.nn.functional.conv_transpose1d`.

    Parameters
    ----------
    input : Tensor
        ``(N, in_channels, L)`` or ``(in_channels, L)``.
    weight : Tensor
        ``(L, kernel_size, out_channels // groups, in_channels)``. If the first axis is 1, the
        weight is shared.
    bias : Tensor, optional
        ``(L_out, out_channels)``, or ``(1, out_channels)``.
    stride, padding, output_padding, groups, dilation
        As in `torch.nn.functional.conv_transpose1d`.
    data_format, implementation
        As in `lcmulti.local_conv_transpose`.

    Returns
    -------
    Tensor
        ``(N, out_channels, L_out)`` or ``(out_channels, L_out)``.

    Raises
    ------
    LcmultiError
        As `lcmulti.local_conv_transpose`.
    """
    return _transpose(
        1, input, weight, bias, stride, padding, output_padding, groups, dilation, data_format,
        implementation,
    )  # fmt: skip


def local_conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    output_padding: Sizes | None = 0,
    groups: int = 1,
    dilation: Sizes = 1,
    *,
    data_format: str = "channels_first",
    implementation: str = "auto",
) -> Tensor:
    """Transposed 2D operation, in the order of `torch.nn.functional.conv_transpose2d`.

    As `local_conv_transpose1d`, with ``weight`` of shape
    ``(H, W, kH, kW, out_channels // groups, in_channels)``.
    """
    return _transpose(
        2, input, weight, bias, stride, padding, output_padding, groups, dilation, data_format,
        implementation,
    )  # fmt: skip


def local_conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    output_padding: Sizes | None = 0,
    groups: int = 1,
    dilation: Sizes = 1,
    *,
    data_format: str = "channels_first",
    implementation: str = "auto",
) -> Tensor:
    """Transposed 3D operation, in the order of `torch.nn.functional.conv_transpose3d`.

    As `local_conv_transpose1d`, with ``weight`` of shape
    ``(D, H, W, kD, kH, kW, out_channels // groups, in_channels)``.
    """
    return _transpose(
        3, input, weight, bias, stride, padding, output_padding, groups, dilation, data_format,
        implementation,
    )  # fmt: skip
