"""The base of the layer and of the transposed layer: parameters, initial values, geometry."""

# Annotations are not strings here: `torch.fx` writes those of `forward` into the code it makes.

import sys
from collections.abc import Callable, Sequence
from math import sqrt
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

import lcmulti
from lcmulti.errors import ArgumentError, ArgumentTypeError, UnsupportedError, described
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti_torch import tracing
from lcmulti_torch.arguments import (
    MISSING,
    Padding,
    Sizes,
    in_torchs_words,
    refuse_samples,
    with_batch,
)
from lcmulti_torch.conversion import conv_of_layer, layer_of_conv
from lcmulti_torch.functional import traced
from lcmulti_torch.memory import beyond_formats
from lcmulti_torch.states import of_a_convolution, of_another_geometry
from lcmulti_torch.symbolic import is_proxy

__all__ = ["Conv", "LocallyConnectedNd"]

Conv = TypeVar("Conv", bound=nn.Module)


class LocallyConnectedNd(nn.Module, Generic[Conv]):
    """A module with parameters, a spec and a call. The number of spatial axes is a class attribute.

    Attributes
    ----------
    spec : LocalConvSpec
        The geometry; for a transposed layer, that of the operation it is the adjoint of.
    weight : Parameter
        ``spec.kernel_shape``. With *rank*, there are ``basis`` and ``coefficients`` instead.
    bias : Parameter or None
    """

    ndim: ClassVar[int]
    convolution: ClassVar[type[nn.Module]]
    spec: LocalConvSpec
    weight: nn.Parameter
    basis: nn.Parameter
    coefficients: nn.Parameter
    bias: nn.Parameter | None
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    input_size: tuple[int, ...]
    output_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Padding
    dilation: tuple[int, ...]
    groups: int
    padding_mode: str
    data_format: str
    shared_axes: tuple[int, ...]
    rank: int | None
    implementation: str
    _sample_shape: tuple[int, ...]

    if TYPE_CHECKING:

        def __call__(self, input: Tensor) -> Tensor:
            """See `forward`."""
            ...

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
        """Draw weight and bias as `torch.nn.Conv2d` does, independently at every position.

        They are uniform within ``1 / sqrt(in_channels // groups * prod(kernel_size))``. With a
        rank, this holds for the basis, and the coefficients have variance ``1 / rank``, so that the
        mixed kernels have the variance of the basis.
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

    def full_kernel(self) -> Tensor:
        """The weights of every position, ``spec.kernel_shape``; also of a low-rank layer."""
        if self.rank is None:
            return self.weight
        return lcmulti.low_rank_kernel(self.basis, self.coefficients)

    kernel = full_kernel

    @torch.no_grad()
    def share_(self, axes: Sequence[int] | None = None) -> Self:
        """Replace the weights, in place, by their mean over output positions.

        Every few training steps, this keeps a layer near a convolution. With a rank, the
        coefficients are averaged.

        Parameters
        ----------
        axes : tuple of int, optional
            Spatial axes to average along; None takes all.

        Returns
        -------
        The layer itself.
        """
        over = self.spec.axes_to_average(axes)
        for name in ("weight" if self.rank is None else "coefficients", "bias"):
            each = getattr(self, name)
            if each is None or not over:
                continue
            mean = each.mean(over, keepdim=True).expand_as(each)
            if name in self._parameters:
                each.copy_(mean)
            elif nn.utils.parametrize.is_parametrized(self, name):
                # The setter finds an original with this value, or raises.
                setattr(self, name, mean.contiguous())
            else:
                computed = described("a tensor that is computed before each call")
                raise ArgumentTypeError(name, "a parameter", computed)
        return self

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer to a batch, or to a single sample without a batch axis."""
        if not isinstance(input, torch.Tensor) and is_proxy(input):
            return self._traced(input)
        y: Tensor = tracing.run(with_batch, self._checked, input, self.ndim)
        return y

    def _traced(self, x: Any) -> Tensor:
        """For `torch.fx`: a node of the layer, or of its operation where the layer is the root."""
        path = x.tracer.path_of_module(self)
        if path:
            y: Tensor = x.tracer.create_proxy("call_module", path, (x,), {})
            return y
        operation, weights, arguments = self._operation()
        return traced(operation, self.ndim, x, *weights, **arguments)

    def _checked(self, x: Tensor) -> Tensor:
        # Ints in a loop, so that the batch does not become part of a traced comparison.
        for size, wanted in zip(x.shape[1:], self._sample_shape, strict=True):
            if size != wanted:
                # A compiler must not trace an error; where there is none, its import takes seconds.
                plain = not torch.compiler.is_compiling() and "torch._dynamo" not in sys.modules
                refuse = refuse_samples if plain else torch.compiler.disable(refuse_samples)
                refuse(tuple(x.shape[1:]), self._sample_shape, self.data_format)
        operation, weights, arguments = self._operation()
        try:
            return operation(x, *weights, **arguments)
        except ArgumentError as error:
            raise in_torchs_words(error) from None

    def _operation(self) -> tuple[Callable[..., Tensor], tuple[Tensor | None, ...], dict[str, Any]]:
        """What computes the layer: of an input, these weights and these arguments."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """The arguments that differ from the defaults, in the form of `torch.nn.Conv2d`."""
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
        trouble = of_a_convolution(self, state_dict, prefix) or of_another_geometry(
            self, state_dict, prefix
        )
        if trouble:
            rest[-1].append(trouble)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Apply *fn* to all tensors. A change of memory format has no effect on weights.

        ``model.to(memory_format=torch.channels_last)`` is for weights of convolutions, which it
        recognises by their number of axes. The axes of these weights have other meanings.
        """
        return super()._apply(lambda tensor: beyond_formats(fn, tensor), recurse)

    def __setattr__(self, name: str, value: Any) -> None:
        caller = sys._getframe(1).f_globals.get("__name__")
        # PyTorch's fusion assumes that the first axis of a weight is the filters.
        if caller == "torch.nn.utils.fusion":
            raise UnsupportedError(
                "torch.nn.utils.fuse_conv_bn_eval knows weights of convolutions alone; "
                "lcmulti_torch.fuse_bn(layer, bn) fuses a locally connected layer"
            )
        super().__setattr__(name, value)

    @classmethod
    def from_conv(
        cls,
        conv: Conv,
        input_size: Sizes = MISSING,
        *,
        data_format: str = "channels_first",
        shared_axes: Sequence[int] = (),
        implementation: str = "auto",
    ) -> Self:
        """A layer that computes what *conv* does; in training, its positions may become different.

        Parameters
        ----------
        conv : torch.nn.Module
            A convolution of the same number of axes; it is not changed. The layer takes its dtype,
            device, ``requires_grad`` and mode.
        input_size : int or tuple of int
        data_format, shared_axes, implementation
            Arguments of the layer.

        Raises
        ------
        ArgumentTypeError
            If *conv* is another module.
        ArgumentError
            If *conv* is lazy and has no weights yet.
        """
        return layer_of_conv(
            cls, conv, input_size, data_format=data_format, shared_axes=shared_axes,
            implementation=implementation,
        )  # fmt: skip

    def to_conv(self, tolerance: float | None = 0.0) -> Conv:
        """The convolution equal to this layer, or with *tolerance* None the mean over positions.

        Parameters
        ----------
        tolerance : float or None, default 0
            Largest difference of a weight between two positions.

        Raises
        ------
        ArgumentError
            If weights differ more between positions (the message says by how much), or if PyTorch's
            convolutions do not have this padding.
        """
        conv: Conv = conv_of_layer(self, tolerance)
        return conv

    @staticmethod
    def _convolution_arguments(like: Any) -> dict[str, Any]:
        """The arguments of a layer or convolution that only this kind has."""
        raise NotImplementedError


def _uniform_(tensor: Tensor, bound: float) -> None:
    """Draw from ``[-bound, bound)``. A part of a DTensor gets the values it has in the whole."""
    distributed = sys.modules.get("torch.distributed.tensor")  # imported by whoever has a DTensor
    if distributed is None or not isinstance(tensor, distributed.DTensor):
        nn.init.uniform_(tensor, -bound, bound)
        return
    from lcmulti_torch.parallel.drawing import uniform_

    uniform_(tensor, bound)
