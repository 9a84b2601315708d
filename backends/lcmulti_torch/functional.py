"""`lcmulti.local_conv` with the names, the order and the defaults of `torch.nn.functional`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lcmulti_torch.missing import missing

try:
    from torch import Tensor
except ModuleNotFoundError as error:
    raise missing("lcmulti_torch.functional", error) from error

import lcmulti
from lcmulti.errors import ArgumentError, ShapeError, described
from lcmulti_torch.arguments import NAMES, Padding, Sizes, in_torchs_words, with_batch
from lcmulti_torch.symbolic import called, is_proxy

__all__ = [
    "local_conv1d",
    "local_conv2d",
    "local_conv3d",
    "local_conv_transpose1d",
    "local_conv_transpose2d",
    "local_conv_transpose3d",
]


def traced(
    operation: Callable[..., Tensor], ndim: int, *arrays: Tensor | None, **arguments: Any
) -> Tensor:
    """The node that calls an operation of `lcmulti` by its function here."""
    function: Callable[..., Tensor] = local_conv_low_rank
    if operation is not lcmulti.local_conv_low_rank:
        function = globals()[f"{operation.__name__}{ndim}d"]
        arguments = {NAMES.get(name, name): value for name, value in arguments.items()}
    y: Tensor = called(function, *arrays, **arguments)
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


def local_conv_low_rank(
    input: Tensor,
    basis: Tensor,
    coefficients: Tensor,
    bias: Tensor | None = None,
    **arguments: Any,
) -> Tensor:
    """What a low-rank layer computes, of a batch or of one sample: the node of a traced layer."""
    if is_proxy(input) or is_proxy(basis):
        return traced(lcmulti.local_conv_low_rank, 0, input, basis, coefficients, bias, **arguments)

    def run(x: Tensor) -> Tensor:
        try:
            return lcmulti.local_conv_low_rank(x, basis, coefficients, bias, **arguments)
        except ArgumentError as error:
            raise in_torchs_words(error) from None

    return with_batch(run, input, coefficients.dim() - 1)


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
