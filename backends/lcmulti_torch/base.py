"""What the layer and its transposed have in common: parameters, their start, their geometry."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any, ClassVar, Self

import torch
from torch import nn

import lcmulti
from lcmulti.errors import ArgumentError, ArgumentTypeError, ShapeError, described
from lcmulti.geometry.arguments import integer
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.weights.initial import geometry_told
from lcmulti_torch.functional import with_batch

__all__ = ["LocallyConnectedNd"]


class LocallyConnectedNd(nn.Module):
    """Parameters, a spec and one call; the number of spatial axes is a class attribute.

    Attributes
    ----------
    spec : LocalConvSpec
        The geometry; of a transposed layer, that of the operation it is the adjoint of.
    weight : Parameter
        ``spec.kernel_shape``. With *rank*, there are ``basis`` and ``coefficients`` instead.
    bias : Parameter or None
    """

    ndim: ClassVar[int]
    convolution: ClassVar[type[nn.Module]]
    spec: LocalConvSpec
    weight: Any
    bias: Any

    def _make_parameters(self, bias: bool, device: Any, dtype: Any) -> None:
        for name, shape in self._parameter_shapes().items():
            made = name != "bias" or bias
            value = torch.empty(shape, device=device, dtype=dtype) if made else None
            self.register_parameter(name, nn.Parameter(value) if made else None)
        self.reset_parameters()

    def _parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        if self.rank is None:
            return {"weight": self.spec.kernel_shape, "bias": self._bias_shape()}
        taps = self.spec.kernel_shape[self.ndim :]
        return {
            "basis": (self.rank, *(1,) * self.ndim, *taps),
            "coefficients": (*self.spec.positions_shape, self.rank),
            "bias": self._bias_shape(),
        }

    def _bias_shape(self) -> tuple[int, ...]:
        return self.spec.bias_shape

    def reset_parameters(self) -> None:
        """Draw weight and bias as `torch.nn.Conv2d` does, at every position anew.

        Uniform within ``1 / sqrt(in_channels // groups * prod(kernel_size))``. With a rank, the
        basis is drawn so and the coefficients with variance ``1 / rank``, which gives the mixed
        kernels the variance of one of the basis.
        """
        bound = 1 / sqrt(self.spec.terms)
        if self.rank is None:
            _uniform_(self.weight, bound)
        else:
            _uniform_(self.basis, bound)
            limit = sqrt(3 / self.rank)
            _uniform_(self.coefficients, limit)
        if self.bias is not None:
            _uniform_(self.bias, bound)

    def kernel(self) -> torch.Tensor:
        """The weights of every position, ``spec.kernel_shape``, whether of full rank or not."""
        if self.rank is None:
            return self.weight
        return lcmulti.low_rank_kernel(self.basis, self.coefficients)

    @torch.no_grad()
    def share_(self, axes: Any = None) -> LocallyConnectedNd:
        """Average the weights over output positions, in place, so that all have the mean.

        Taken every few steps, it keeps a layer near a convolution. With a rank, the coefficients
        are averaged.

        Parameters
        ----------
        axes : tuple of int, optional
            Spatial axes to average along; None takes all.

        Returns
        -------
        The layer itself.
        """
        axes = tuple(range(self.ndim)) if axes is None else self.spec.sharing(axes).shared_axes
        for name in ("weight" if self.rank is None else "coefficients", "bias"):
            each = getattr(self, name)
            if each is None or not axes:
                continue
            mean = each.mean(axes, keepdim=True).expand_as(each)
            if name in self._parameters:
                each.copy_(mean)
            elif nn.utils.parametrize.is_parametrized(self, name):
                setattr(self, name, mean.contiguous())  # it finds what gives this, or refuses
            else:
                computed = described("a tensor that is computed before each call")
                raise ArgumentTypeError(name, "a parameter", computed)
        return self

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Apply the layer to a batch, or to one sample without a batch axis."""
        return with_batch(self._checked, input, self.ndim)

    def _checked(self, x: torch.Tensor) -> torch.Tensor:
        # Ints in a loop, for a tracer must not take the batch for part of the comparison.
        for size, wanted in zip(x.shape[1:], self._sample_shape, strict=True):
            if size != wanted:
                torch.compiler.disable(self._refuse)(tuple(x.shape[1:]))  # no error is traced
        return self._run(x)

    def _run(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _refuse(self, shape: tuple[int, ...]) -> None:
        wanted = self._sample_shape
        first = self.data_format == "channels_first"
        size, channels = (shape[1:], shape[0]) if first else (shape[:-1], shape[-1])
        raise ShapeError(
            "input",
            f"samples of shape {wanted}, which the weights were made for",
            described(
                f"{shape}; for these build a layer with in_channels={channels}, input_size={size}"
            ),
        )

    def extra_repr(self) -> str:
        """What differs from the defaults, as `torch.nn.Conv2d` writes it."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        text += f", input_size={self.input_size}, stride={self.stride}"
        defaults = {
            "padding": (0,) * self.ndim,
            "output_padding": (0,) * self.ndim,
            "dilation": (1,) * self.ndim,
            "groups": 1,
            "padding_mode": "zeros",
            "data_format": "channels_first",
            "shared_axes": (),
            "rank": None,
            "implementation": "auto",
        }
        for name, default in defaults.items():
            value = getattr(self, name, default)
            if value != default:
                text += f", {name}={value!r}"
        return text if self.bias is not None else f"{text}, bias=False"

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        errors = rest[-1]
        own = {f"{prefix}{name}": value for name, value in self._parameters.items()}
        (kind, ours), (given, theirs) = _told(own, prefix), _told(state_dict, prefix)
        # A state of other names is torch's to judge: it alone knows whether to be strict.
        if given == kind and theirs != ours:
            errors.append(f"{prefix}{given} is for {theirs}; this layer is for {ours}")

    @classmethod
    def from_conv(
        cls,
        conv: nn.Module,
        input_size: Any,
        *,
        data_format: str = "channels_first",
        shared_axes: Any = (),
        implementation: str = "auto",
    ) -> Self:
        """A layer that computes what *conv* does, and may then differ between positions.

        Parameters
        ----------
        conv : torch.nn.Module
            The convolution this layer is the locally connected form of. Left as it is; its
            dtype, device and ``requires_grad`` are taken over.
        input_size : int or tuple of int
        data_format, shared_axes, implementation
            Of the layer.

        Raises
        ------
        ArgumentTypeError
            If *conv* is another module.
        """
        if not isinstance(conv, cls.convolution):
            raise ArgumentTypeError("conv", f"a torch.nn.{cls.convolution.__name__}", conv)
        layer = cls(
            conv.in_channels, conv.out_channels, conv.kernel_size, input_size,
            stride=conv.stride, padding=conv.padding, dilation=conv.dilation, groups=conv.groups,
            bias=conv.bias is not None, data_format=data_format, shared_axes=shared_axes,
            implementation=implementation, device="meta", dtype=conv.weight.dtype,
            **cls._convolution_arguments(conv),
        )  # fmt: skip
        kernel = conv.weight.movedim((0, 1), (-1, -2))  # to (*kernel_size, .., ..)
        pairs = {"weight": (kernel, conv.weight), "bias": (conv.bias, conv.bias)}
        for name, (values, original) in pairs.items():
            if values is not None:
                own = values.detach().expand(layer._parameter_shapes()[name])
                own = own.clone(memory_format=torch.contiguous_format)
                setattr(layer, name, nn.Parameter(own, original.requires_grad))
        return layer

    def to_conv(self, tolerance: float | None = 0.0) -> nn.Module:
        """The convolution this layer is, or (*tolerance* None) the mean over positions.

        Parameters
        ----------
        tolerance : float or None, default 0
            Largest difference of a weight between two positions.

        Raises
        ------
        ArgumentError
            If weights differ more between positions (with how far), or the padding is one that
            PyTorch's convolutions do not have.
        """
        kernel, bias = self._mean_weights(tolerance)
        padding = self.spec.padding
        if any(low != high for low, high in padding):
            shown = described(f"(low, high) pairs {padding}")
            raise ArgumentError("padding", "the same on both sides, as a convolution has", shown)
        conv = self.convolution(
            self.in_channels, self.out_channels, self.kernel_size, self.stride,
            tuple(low for low, _ in padding), groups=self.groups, dilation=self.dilation,
            bias=bias is not None, device="meta", dtype=kernel.dtype,
            **self._convolution_arguments(self),
        )  # fmt: skip
        weight = kernel.detach().movedim((-1, -2), (0, 1)).contiguous()
        conv.weight = nn.Parameter(weight, kernel.requires_grad)
        if bias is not None:
            conv.bias = nn.Parameter(bias.detach(), bias.requires_grad)
        return conv

    @staticmethod
    def _convolution_arguments(like: Any) -> dict[str, Any]:
        """What this kind has beyond the arguments that both have, of a layer or convolution."""
        raise NotImplementedError

    def _mean_weights(self, tolerance: float | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Kernel ``(*kernel_size, C, F)`` and bias, the same everywhere, or an error."""
        axes = tuple(range(self.ndim))
        means = []
        for name, each in (("weight", self.kernel()), ("bias", self.bias)):
            if each is None:
                means.append(None)
                continue
            values = each.detach()
            numbers = torch.view_as_real(values) if values.is_complex() else values
            apart = float((numbers.amax(axes) - numbers.amin(axes)).max())
            if tolerance is not None and apart > tolerance:
                raise ArgumentError(
                    name,
                    f"the same at every position within {tolerance} "
                    "(to_conv(tolerance=None) takes the mean)",
                    described(f"weights that differ by up to {apart:.3g} between positions"),
                )
            # A mean of equal numbers would be rounded.
            mean = values.mean(axes) if apart else values[(0,) * self.ndim].clone()
            means.append(mean.requires_grad_(each.requires_grad))
        return means[0], means[1]


def _uniform_(tensor: torch.Tensor, bound: float) -> None:
    """Draw from ``[-bound, bound)``; a part of a DTensor as it would be drawn in the whole."""
    if type(tensor) in (torch.Tensor, nn.Parameter):
        nn.init.uniform_(tensor, -bound, bound)
        return
    from torch.distributed.tensor import DTensor

    if not isinstance(tensor, DTensor):
        nn.init.uniform_(tensor, -bound, bound)
        return
    from lcmulti_torch.parallel.drawing import uniform_

    uniform_(tensor, bound)


def _told(state: Mapping[str, Any], prefix: str) -> tuple[str, str]:
    """The name of the weights in a state, and the geometry they are for; empty for neither."""
    for names in (("weight",), ("basis", "coefficients")):
        found = [state.get(f"{prefix}{name}") for name in names]
        if all(each is not None for each in found):
            return names[-1], geometry_told(*(tuple(each.shape) for each in found))
    return "", ""


def optional_rank(rank: Any) -> int | None:
    """Check a rank; None is full rank."""
    return None if rank is None else integer("rank", rank, 1)


def sample_shape(channels: int, size: tuple[int, ...], data_format: str) -> tuple[int, ...]:
    """Shape of one sample."""
    return (channels, *size) if data_format == "channels_first" else (*size, channels)
