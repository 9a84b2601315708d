"""Layers that learn ``in_channels`` and ``input_size`` from the first batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedParameter

from lcmulti.errors import ShapeError, described
from lcmulti.weights.initial import geometry_told
from lcmulti_torch.arguments import MISSING, Padding, Sizes
from lcmulti_torch.base import Conv
from lcmulti_torch.layers import (
    LocallyConnected1d,
    LocallyConnected2d,
    LocallyConnected3d,
    LocallyConnectedForward,
)
from lcmulti_torch.states import of_a_convolution

__all__ = ["LazyLocallyConnected1d", "LazyLocallyConnected2d", "LazyLocallyConnected3d"]


class _Lazy(LazyModuleMixin, LocallyConnectedForward[Conv]):
    """`LocallyConnected1d`, `2d` or `3d` without ``in_channels`` and ``input_size``.

    The layer takes both from its first input, as `torch.nn.LazyConv2d` does. Other arguments are
    those of the layer that it then becomes.
    """

    def __init__(
        self,
        out_channels: int,
        kernel_size: Sizes,
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
        super().__init__(
            0, out_channels, kernel_size, MISSING, stride, padding, dilation, groups, bias,
            padding_mode, data_format, shared_axes, rank, implementation, device, dtype,
        )  # fmt: skip

    @classmethod
    def from_conv(cls, *arguments: Any, **keywords: Any) -> Any:
        """The layer that this one would become: with *input_size* everything is known."""
        return cls.cls_to_become.from_conv(*arguments, **keywords)

    def _start(
        self, in_channels: Any, input_size: Any, bias: bool, device: Any, dtype: Any
    ) -> None:
        self.in_channels, self.input_size = in_channels, None  # type: ignore[assignment]
        names = ("weight",) if self.rank is None else ("basis", "coefficients")
        for name in (*names, "bias"):
            made = name != "bias" or bias
            value = UninitializedParameter(device=device, dtype=dtype) if made else None
            self.register_parameter(name, value)

    def reset_parameters(self) -> None:
        """Draw the parameters, if they exist already."""
        if not self.has_uninitialized_params():
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor) -> None:
        """Make the parameters for samples of the shape of *input*."""
        shape = tuple(input.shape)
        if len(shape) not in (self.ndim + 1, self.ndim + 2):
            expected = f"rank {self.ndim + 2}, or {self.ndim + 1} without a batch"
            raise ShapeError("input", expected, described(str(shape)))
        sample = shape[-self.ndim - 1 :]
        first = self.data_format == "channels_first"
        channels, size = (sample[0], sample[1:]) if first else (sample[-1], sample[:-1])
        self._set_geometry(channels, size)
        if not self.has_uninitialized_params():  # a state dict was loaded before the first batch
            self._require_fitting(sample)
            return
        with torch.no_grad():
            for name, shape in self._parameter_shapes().items():
                parameter = getattr(self, name)
                if parameter is not None:
                    parameter.materialize(shape)
            self.reset_parameters()

    def _require_fitting(self, sample: tuple[int, ...]) -> None:
        shapes = {n: s for n, s in self._parameter_shapes().items() if getattr(self, n) is not None}
        loaded = {name: tuple(getattr(self, name).shape) for name in shapes}
        if loaded != shapes:
            weights = [name for name in shapes if name != "bias"]
            ours, theirs = (geometry_told(*(of[n] for n in weights)) for of in (shapes, loaded))
            raise ShapeError(
                "input",
                f"samples for the weights that were loaded, of {theirs}",
                described(f"{sample}, for which a layer has {ours}; load weights of such a layer"),
            )

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        # There is no geometry yet to hold the state to: the first batch has it.
        if trouble := of_a_convolution(self, state_dict, prefix):
            rest[-1].append(trouble)
            return
        nn.Module._load_from_state_dict(self, state_dict, prefix, *rest)


class LazyLocallyConnected1d(_Lazy[nn.Conv1d]):  # noqa: D101 - its base's
    __doc__ = _Lazy.__doc__
    ndim, convolution = 1, nn.Conv1d
    cls_to_become = LocallyConnected1d


class LazyLocallyConnected2d(_Lazy[nn.Conv2d]):  # noqa: D101 - its base's
    __doc__ = _Lazy.__doc__
    ndim, convolution = 2, nn.Conv2d
    cls_to_become = LocallyConnected2d


class LazyLocallyConnected3d(_Lazy[nn.Conv3d]):  # noqa: D101 - its base's
    __doc__ = _Lazy.__doc__
    ndim, convolution = 3, nn.Conv3d
    cls_to_become = LocallyConnected3d
