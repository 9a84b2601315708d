"""`LocallyConnectedTranspose1d`, `2d` and `3d`, as `torch.nn.ConvTranspose*d`."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

import lcmulti
from lcmulti.arguments import choice, per_axis
from lcmulti.errors import ArgumentError, ArgumentTypeError, described
from lcmulti.spec import DATA_FORMATS
from lcmulti.transposed import output_padding_of
from lcmulti_torch.base import (
    LocallyConnectedNd,
    is_symmetric,
    optional_rank,
    sample_shape,
    spread,
)

__all__ = [
    "LocallyConnectedTranspose1d",
    "LocallyConnectedTranspose2d",
    "LocallyConnectedTranspose3d",
]


class _LocallyConnectedTranspose(LocallyConnectedNd):
    """A transposed convolution whose weights differ at every input position.

    It is the adjoint of the locally connected layer of the same arguments whose output has the
    size *input_size*.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or tuple of int
    input_size : int or tuple of int
        Spatial size of what comes in.
    stride, padding, output_padding, groups, bias, dilation
        As in `torch.nn.ConvTranspose2d`, with ``output_padding`` less than the stride. None
        takes what `lcmulti.transposed_spec` says; *padding* is also a string of
        `lcmulti.LocalConvSpec` or one ``(low, high)`` pair per axis.
    data_format : {"channels_first", "channels_last"}
    shared_axes : tuple of int, default ()
        Spatial axes of the input along which the kernel is shared.
    rank : int, optional
        As in `LocallyConnected2d`.
    implementation : str, default "auto"
    device, dtype
        As in any module.

    Attributes
    ----------
    weight : Parameter
        ``(*input_size, *kernel_size, out_channels // groups, in_channels)``.
    bias : Parameter or None
        ``(*output_size, out_channels)``.

    Raises
    ------
    ArgumentError
        For an argument that cannot be; at call time (`ShapeError`) for samples of another shape.
    """

    convolution: ClassVar[type[nn.Module]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        input_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        data_format: str = "channels_first",
        shared_axes: Any = (),
        rank: int | None = None,
        implementation: str = "auto",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.data_format = choice("data_format", data_format, DATA_FORMATS)
        self.input_size = per_axis("input_size", input_size, self.ndim)
        self.rank, self.implementation = optional_rank(rank), implementation
        self.spec = spec = lcmulti.transposed_spec(
            sample_shape(in_channels, self.input_size, self.data_format),
            out_channels,
            kernel_size,
            strides=stride,
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
        shared = self.spec.shared_axes
        size = (1 if axis in shared else n for axis, n in enumerate(self.output_size))
        return (*size, self.out_channels)

    def _run(self, x: torch.Tensor) -> torch.Tensor:
        return lcmulti.local_conv_transpose(
            x,
            self.kernel(),
            self.bias,
            strides=self.stride,
            padding=self._padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
            data_format=self.data_format,
            implementation=self.implementation,
        )

    @classmethod
    def from_conv(
        cls, conv: nn.Module, input_size: Any, **arguments: Any
    ) -> _LocallyConnectedTranspose:
        """A layer that computes what *conv* does, and may then differ between positions.

        Parameters
        ----------
        conv : torch.nn.ConvTranspose1d, ConvTranspose2d or ConvTranspose3d
        input_size : int or tuple of int
        **arguments
            ``data_format``, ``shared_axes`` and ``implementation`` of the layer.
        """
        if not isinstance(conv, cls.convolution):
            raise ArgumentTypeError("conv", f"a torch.nn.{cls.convolution.__name__}", conv)
        layer = cls(
            conv.in_channels, conv.out_channels, conv.kernel_size, input_size, conv.stride,
            conv.padding, conv.output_padding, conv.groups, conv.bias is not None, conv.dilation,
            device="meta", dtype=conv.weight.dtype, **arguments,
        )  # fmt: skip
        # (G * C_in, C_out, *k) -> (*k, C_out, G * C_in)
        kernel = conv.weight.movedim((0, 1), (-1, -2))
        trained = conv.weight.requires_grad
        layer.weight = nn.Parameter(spread(kernel, layer.spec.kernel_shape), trained)
        if conv.bias is not None:
            layer.bias = nn.Parameter(spread(conv.bias, layer._bias_shape()), trained)
        return layer

    def to_conv(self, tolerance: float | None = 0.0) -> nn.Module:
        """The transposed convolution this layer is, or (*tolerance* None) the mean.

        Parameters and errors are those of `LocallyConnected2d.to_conv`.
        """
        kernel, bias = self._mean_weights(tolerance)
        if not is_symmetric(self.spec):
            shown = described(f"(low, high) pairs {self.spec.padding}")
            raise ArgumentError("padding", "the same on both sides, as a convolution has", shown)
        conv = self.convolution(
            self.in_channels, self.out_channels, self.kernel_size, self.stride,
            tuple(low for low, _ in self.spec.padding), self.output_padding, self.groups,
            bias is not None, self.dilation, device="meta", dtype=kernel.dtype,
        )  # fmt: skip
        conv.weight = nn.Parameter(kernel.movedim((-1, -2), (0, 1)).contiguous())
        if bias is not None:
            conv.bias = nn.Parameter(bias)
        return conv


class LocallyConnectedTranspose1d(_LocallyConnectedTranspose):  # noqa: D101 - its base's
    __doc__ = _LocallyConnectedTranspose.__doc__
    ndim, convolution = 1, nn.ConvTranspose1d


class LocallyConnectedTranspose2d(_LocallyConnectedTranspose):  # noqa: D101 - its base's
    __doc__ = _LocallyConnectedTranspose.__doc__
    ndim, convolution = 2, nn.ConvTranspose2d


class LocallyConnectedTranspose3d(_LocallyConnectedTranspose):  # noqa: D101 - its base's
    __doc__ = _LocallyConnectedTranspose.__doc__
    ndim, convolution = 3, nn.ConvTranspose3d
