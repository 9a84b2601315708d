"""`LocallyConnectedTranspose1d`, `2d` and `3d`, like `torch.nn.ConvTranspose*d`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import lcmulti
from lcmulti.geometry.arguments import choice, integer, per_axis
from lcmulti.geometry.formats import DATA_FORMATS
from lcmulti.geometry.transposed import bias_shape_of, output_padding_of
from lcmulti_torch.arguments import (
    MISSING,
    Padding,
    Sizes,
    optional_rank,
    sample_shape,
    sizes_of_input,
)
from lcmulti_torch.base import Conv, LocallyConnectedNd

__all__ = [
    "LocallyConnectedTranspose1d",
    "LocallyConnectedTranspose2d",
    "LocallyConnectedTranspose3d",
]


class LocallyConnectedTransposeNd(LocallyConnectedNd[Conv]):
    """A transposed convolution whose weights differ at every input position.

    It is the adjoint of the locally connected layer that has the same arguments, and outputs of
    size *input_size*.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or tuple of int
    input_size : int or tuple of int
        Spatial size of the input.
    stride, padding, output_padding, groups, bias, dilation
        As in `torch.nn.ConvTranspose2d`, but ``output_padding`` must be less than the stride. None
        is the default of `lcmulti.transposed_spec`. *padding* may also be a string of
        `lcmulti.LocalConvSpec` or one ``(low, high)`` pair per axis.
    data_format : {"channels_first", "channels_last"}
    shared_axes : tuple of int, default ()
        Spatial axes of the input along which the kernel is shared.
    rank : int, optional
        As in `LocallyConnected2d`.
    implementation : str, default "auto"
    device, dtype
        As in any PyTorch module.

    Attributes
    ----------
    weight : Parameter
        ``(*input_size, *kernel_size, out_channels // groups, in_channels)``.
    bias : Parameter or None
        ``(*output_size, out_channels)``.

    Raises
    ------
    ArgumentError
        For an argument that is not allowed; at call time (`ShapeError`) for samples of another
        shape.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        input_size: Sizes = MISSING,
        stride: Sizes = 1,
        padding: Padding = 0,
        output_padding: Sizes | None = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Sizes = 1,
        data_format: str = "channels_first",
        shared_axes: Sequence[int] = (),
        rank: int | None = None,
        implementation: str = "auto",
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels = integer("in_channels", in_channels, 1)
        self.out_channels, self.groups = integer("out_channels", out_channels, 1), groups
        self.data_format = choice("data_format", data_format, DATA_FORMATS)
        self.input_size = sizes_of_input(input_size, self, self.ndim)
        self.rank, self.implementation = optional_rank(rank), implementation
        self.padding_mode = "zeros"
        self.spec = spec = lcmulti.transposed_spec(
            sample_shape(in_channels, self.input_size, self.data_format),
            self.out_channels,
            kernel_size,
            strides=per_axis("stride", stride, self.ndim),
            padding=padding,
            output_padding=output_padding,
            dilation=dilation,
            groups=groups,
            data_format=self.data_format,
            shared_axes=shared_axes,
        )
        self.kernel_size, self.stride, self.dilation = spec.kernel_size, spec.strides, spec.dilation
        self.output_size, self.shared_axes = spec.input_size, spec.shared_axes
        is_number = hasattr(padding, "__index__")
        self.padding = per_axis("padding", padding, self.ndim, 0) if is_number else padding
        self.output_padding = output_padding_of(spec)
        self._sample_shape, self._padding = spec.output_shape, spec.padding
        self._make_parameters(bias, device, dtype)

    def _bias_shape(self) -> tuple[int, ...]:
        return bias_shape_of(self.spec)

    def _operation(self) -> tuple[Callable[..., Tensor], tuple[Tensor | None, ...], dict[str, Any]]:
        arguments: dict[str, Any] = {
            "strides": self.stride,
            "padding": self._padding,
            "output_padding": self.output_padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "data_format": self.data_format,
            "implementation": self.implementation,
        }
        return lcmulti.local_conv_transpose, (self.full_kernel(), self.bias), arguments

    output_padding: tuple[int, ...]

    @staticmethod
    def _convolution_arguments(like: Any) -> dict[str, Any]:
        return {"output_padding": like.output_padding}


class LocallyConnectedTranspose1d(LocallyConnectedTransposeNd[nn.ConvTranspose1d]):  # noqa: D101 - its base's
    __doc__ = LocallyConnectedTransposeNd.__doc__
    ndim, convolution = 1, nn.ConvTranspose1d


class LocallyConnectedTranspose2d(LocallyConnectedTransposeNd[nn.ConvTranspose2d]):  # noqa: D101 - its base's
    __doc__ = LocallyConnectedTransposeNd.__doc__
    ndim, convolution = 2, nn.ConvTranspose2d


class LocallyConnectedTranspose3d(LocallyConnectedTransposeNd[nn.ConvTranspose3d]):  # noqa: D101 - its base's
    __doc__ = LocallyConnectedTransposeNd.__doc__
    ndim, convolution = 3, nn.ConvTranspose3d
