"""`LocallyConnected1d`, `2d` and `3d`: `torch.nn.Conv*d` with other weights at every position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import lcmulti
from lcmulti.geometry.arguments import choice, integer, per_axis
from lcmulti.geometry.formats import DATA_FORMATS
from lcmulti.geometry.padding import PADDING_MODES
from lcmulti_torch.arguments import (
    MISSING,
    Padding,
    Sizes,
    optional_rank,
    sample_shape,
    sizes_of_input,
)
from lcmulti_torch.base import Conv, LocallyConnectedNd

__all__ = ["LocallyConnected1d", "LocallyConnected2d", "LocallyConnected3d"]


class LocallyConnectedForward(LocallyConnectedNd[Conv]):
    """A convolution whose weights differ at every output position.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or tuple of int
    input_size : int or tuple of int
        Spatial size of the input. The layer must know it, because each position has weights.
    stride, padding, dilation, groups, bias, padding_mode
        As in `torch.nn.Conv2d`. *padding* may also be a string of `lcmulti.LocalConvSpec` or one
        ``(low, high)`` pair per axis. ``"same"`` may have strides, by the rule of TensorFlow.
    data_format : {"channels_first", "channels_last"}
        Where the channels are in the input and in the output.
    shared_axes : tuple of int, default ()
        Spatial axes of the output along which the kernel is shared.
    rank : int, optional
        Low-rank weights: the kernel of a position is a sum of *rank* shared kernels times
        coefficients of its own (arXiv 2002.02959). None: full rank.
    implementation : str, default "auto"
    device, dtype
        As in any PyTorch module.

    Attributes
    ----------
    weight : Parameter
        ``(*output_size, *kernel_size, in_channels // groups, out_channels)``, lcmulti's layout.
    bias : Parameter or None
        ``(*output_size, out_channels)``.
    basis, coefficients : Parameter
        With a rank, in place of ``weight``: ``(rank, 1.., *kernel_size, in_channels // groups,
        out_channels)`` and ``(*output_size, rank)``.

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
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        data_format: str = "channels_first",
        shared_axes: Sequence[int] = (),
        rank: int | None = None,
        implementation: str = "auto",
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self._keep_arguments(
            out_channels, kernel_size, stride, padding, dilation, groups, padding_mode,
            data_format, shared_axes, rank, implementation,
        )  # fmt: skip
        self._start(in_channels, input_size, bias, device, dtype)

    def _start(
        self, in_channels: Any, input_size: Any, bias: bool, device: Any, dtype: Any
    ) -> None:
        self._set_geometry(in_channels, sizes_of_input(input_size, self, self.ndim))
        self._make_parameters(bias, device, dtype)

    def _keep_arguments(
        self, out_channels: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
        groups: Any, padding_mode: Any, data_format: Any, shared_axes: Any, rank: Any,
        implementation: Any,
    ) -> None:  # fmt: skip
        """Check what can be checked before the size of the input is known."""
        self.out_channels, self.groups = integer("out_channels", out_channels, 1), groups
        self.kernel_size = per_axis("kernel_size", kernel_size, self.ndim)
        self.stride = per_axis("stride", stride, self.ndim)
        self.dilation = per_axis("dilation", dilation, self.ndim)
        is_number = hasattr(padding, "__index__")
        self.padding = per_axis("padding", padding, self.ndim, 0) if is_number else padding
        self.padding_mode = choice("padding_mode", padding_mode, PADDING_MODES)
        self.data_format = choice("data_format", data_format, DATA_FORMATS)
        self.shared_axes, self.rank = shared_axes, optional_rank(rank)
        self.implementation = implementation

    def _set_geometry(self, in_channels: int, input_size: tuple[int, ...]) -> None:
        in_channels = integer("in_channels", in_channels, 1)
        self.spec = lcmulti.LocalConvSpec(
            sample_shape(in_channels, input_size, self.data_format),
            self.out_channels,
            self.kernel_size,
            strides=self.stride,
            padding=self.padding,
            padding_mode=self.padding_mode,
            dilation=self.dilation,
            groups=self.groups,
            data_format=self.data_format,
            shared_axes=self.shared_axes,
        )
        self.in_channels, self.input_size = in_channels, input_size
        self.output_size, self.shared_axes = self.spec.output_size, self.spec.shared_axes
        self._sample_shape, self._padding = self.spec.input_shape, self.spec.padding

    def _operation(self) -> tuple[Callable[..., Tensor], tuple[Tensor | None, ...], dict[str, Any]]:
        arguments: dict[str, Any] = {
            "strides": self.stride,
            "padding": self._padding,
            "padding_mode": self.padding_mode,
            "dilation": self.dilation,
            "groups": self.groups,
            "data_format": self.data_format,
            "implementation": self.implementation,
        }
        if self.rank is None:
            return lcmulti.local_conv, (self.weight, self.bias), arguments
        weights = (self.basis, self.coefficients, self.bias)
        return lcmulti.local_conv_low_rank, weights, arguments

    @staticmethod
    def _convolution_arguments(like: Any) -> dict[str, Any]:
        return {"padding_mode": like.padding_mode}


class LocallyConnected1d(LocallyConnectedForward[nn.Conv1d]):  # noqa: D101 - its base's
    __doc__ = LocallyConnectedForward.__doc__
    ndim, convolution = 1, nn.Conv1d


class LocallyConnected2d(LocallyConnectedForward[nn.Conv2d]):  # noqa: D101 - its base's
    __doc__ = LocallyConnectedForward.__doc__
    ndim, convolution = 2, nn.Conv2d


class LocallyConnected3d(LocallyConnectedForward[nn.Conv3d]):  # noqa: D101 - its base's
    __doc__ = LocallyConnectedForward.__doc__
    ndim, convolution = 3, nn.Conv3d
