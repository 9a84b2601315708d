"""`untie` makes the convolutions of any module locally connected.

The example runs once, with hooks, to find the input size of each convolution. The result is a deep
copy, in which the copy of each convolution is the new layer. So everything that refers to the
convolution, in any container or attribute, refers to the new layer.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Literal, TypeVar, Unpack, overload

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter

from lcmulti.errors import ArgumentError, ArgumentTypeError, described
from lcmulti.untying import (
    Arguments,
    Row,
    Untying,
    Where,
    chosen,
    planned,
)
from lcmulti_torch.base import LocallyConnectedNd
from lcmulti_torch.layers import LocallyConnected1d, LocallyConnected2d, LocallyConnected3d
from lcmulti_torch.replacing import carry_over, replaced
from lcmulti_torch.shared_weights import check_shared
from lcmulti_torch.sizes_seen import sizes_seen
from lcmulti_torch.transposed import (
    LocallyConnectedTranspose1d,
    LocallyConnectedTranspose2d,
    LocallyConnectedTranspose3d,
)

__all__ = ["LAYERS", "require_module", "untie"]

LAYERS = {
    cls.convolution: cls
    for cls in (
        LocallyConnected1d, LocallyConnected2d, LocallyConnected3d, LocallyConnectedTranspose1d,
        LocallyConnectedTranspose2d, LocallyConnectedTranspose3d,
    )
}  # fmt: skip


Model = TypeVar("Model", bound=nn.Module)


class TorchArguments(Arguments, total=False):
    """Arguments of `untie`, for type checkers."""

    inplace: bool


@overload
def untie(
    model: nn.Module,
    example_input: Any,
    *,
    dry_run: Literal[True],
    **arguments: Unpack[TorchArguments],
) -> Untying: ...
@overload
def untie(
    model: _ConvNd,
    example_input: Any,
    *,
    dry_run: Literal[False] = ...,
    **arguments: Unpack[TorchArguments],
) -> LocallyConnectedNd[Any]: ...
@overload
def untie(
    model: Model,
    example_input: Any,
    *,
    dry_run: Literal[False] = ...,
    **arguments: Unpack[TorchArguments],
) -> Model: ...
@overload
def untie(
    model: Model, example_input: Any, *, dry_run: bool, **arguments: Unpack[TorchArguments]
) -> Model | Untying: ...
def untie(
    model: nn.Module,
    example_input: Any,
    *,
    where: Where = None,
    shared_axes: Sequence[int] = (),
    rank: int | None = None,
    memory: int | str | None = None,
    implementation: str = "auto",
    dry_run: bool = False,
    inplace: bool = False,
    tell: Callable[[str], object] | None = print,
) -> nn.Module | Untying:
    """Turn convolutions into locally connected layers that compute the same at first.

    Parameters
    ----------
    model : torch.nn.Module
        Any module. The example is run once to find its convolutions, including transposed ones, in
        evaluation mode and without gradients. No statistic, buffer, random state or mode is
        changed. Convolutions that are called as functions (``F.conv2d``) are not modules and stay;
        a warning says how many there are.
    example_input : Tensor, tuple or dict
        Arguments for a call of the network, positional or by name. (A network whose only argument
        is a dict takes ``(batch,)``.) The new network takes inputs of this size; the batch does not
        matter.
    where : str, type, callable or a list of these, optional
        Which convolutions: names (``"layer1.0.conv1"``), patterns (``"layer1.*"``), classes, or
        ``(name, module) -> bool``. None: all that can be untied.
    shared_axes : tuple of int, default ()
        Spatial axes along which the kernel stays shared.
    rank : int, optional
        Low-rank weights, whose first kernel is that of the convolution.
    memory : int or str, optional
        Largest size of the new weights (``"4GiB"``). None: the memory of this machine.
    implementation : str, default "auto"
        Implementation of the new layers.
    dry_run : bool, default False
        Only return what would be done.
    inplace : bool, default False
        Change *model* itself instead of a copy. An optimizer made before keeps the parameters of
        the convolutions: make a new one.
    tell : callable or None
        Called with a table of the parameters and memory of each layer, before anything is made.

    Returns
    -------
    torch.nn.Module
        The new network. Its new layers have the names, dtypes, devices, modes, hooks and
        ``requires_grad`` of the convolutions. With *dry_run*, a `lcmulti.untying.Untying`.

    Raises
    ------
    ArgumentError
        If a convolution has inputs of two sizes (the message names both), if its weights are
        computed or shared with another module, or if *where* fits none.
    TooLargeError
        If the weights take more than *memory*. The message names the layers that cost most.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
    >>> y = net(x := torch.randn(2, 3, 8, 8))
    >>> untied = untie(net, x, tell=None)
    >>> untied[0].weight.shape
    torch.Size([6, 6, 3, 3, 3, 8])
    """
    require_module(model)
    convolutions = _convolutions(model)
    wanted = chosen(where, convolutions.items())
    seen = sizes_seen(model, example_input, dict(wanted))
    arguments = {"shared_axes": shared_axes, "rank": rank, "implementation": implementation}

    empty: dict[int, LocallyConnectedNd[Any]] = {}

    def row(name: str, conv: Any, size: tuple[int, ...]) -> Row:
        empty[id(conv)] = layer = _empty(conv, size, arguments)
        return _row(name, conv, layer)

    def unfit(conv: Any) -> str | None:
        return _unfit(conv) or read_elsewhere.get(id(conv))

    read_elsewhere = {
        id(conv): f"its weights are read elsewhere, too, by {seen.elsewhere[name]}"
        for name, conv in wanted
        if name in seen.elsewhere
    }
    plan, sizes = planned(wanted, seen.sizes, where is not None, unfit, row)
    take = [(name, conv, sizes[name]) for name, conv in wanted if name in sizes]
    if seen.functions:
        warnings.warn(
            f"{seen.functions} convolution(s) are called as functions, not as modules, and stay "
            "shared",
            stacklevel=2,
        )
    check_shared(model, [(name, conv) for name, conv, _ in take], empty)
    if dry_run:
        return plan
    plan.announce(tell, memory)
    made: dict[tuple[Any, ...], nn.Parameter] = {}
    with torch.inference_mode(False):  # else they could never be trained
        layers = {id(conv): _layer(conv, size, arguments, made) for _, conv, size in take}
        return replaced(model, {id(conv): conv for _, conv, _ in take}, layers, inplace)


def require_module(model: Any) -> None:
    """Raise unless it is a module whose parameters have values."""
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError("model", "a torch.nn.Module", model)
    lazy = [
        name
        for name, module in model.named_modules()
        if any(isinstance(p, UninitializedParameter) for p in module._parameters.values())
    ]
    if lazy:
        shown = described(f"lazy modules that have seen no batch: {', '.join(map(repr, lazy))}")
        raise ArgumentError("model", "parameters; call model(example_input) once before", shown)


def _convolutions(model: nn.Module) -> dict[str, Any]:
    """The convolutions by name, each only once even if it has several names."""
    return {n: m for n, m in model.named_modules() if isinstance(m, tuple(LAYERS))}


def _unfit(conv: Any) -> str | None:
    """Why a convolution cannot be untied, or None."""
    kind = next(each for each in LAYERS if isinstance(conv, each))
    for name in ("forward", "_conv_forward"):
        own = getattr(type(conv), name, None) is not getattr(kind, name, None)
        if own or name in conv.__dict__:
            return f"{type(conv).__name__} computes something of its own in {name}"
    if not isinstance(conv._parameters.get("weight"), nn.Parameter):
        return "its weight is computed (parametrization, weight norm, pruning); remove that first"
    if "bias" not in conv._parameters:
        return "its bias is computed (parametrization, pruning); remove that first"
    if set(conv._parameters) != {"weight", "bias"}:
        more = ", ".join(sorted(set(conv._parameters) - {"weight", "bias"}))
        return f"it has parameters of its own: {more}"
    return None


def _class_of(conv: Any) -> type[LocallyConnectedNd[Any]]:
    return next(cls for kind, cls in LAYERS.items() if isinstance(conv, kind))


def _empty(conv: Any, size: tuple[int, ...], arguments: dict[str, Any]) -> Any:
    """The new layer, without memory for its weights."""
    cls = _class_of(conv)
    return cls(
        conv.in_channels, conv.out_channels, conv.kernel_size, size, stride=conv.stride,
        padding=conv.padding, dilation=conv.dilation, groups=conv.groups,
        bias=conv.bias is not None, device="meta", dtype=conv.weight.dtype,
        **cls._convolution_arguments(conv), **arguments,
    )  # fmt: skip


def _row(name: str, conv: Any, layer: Any) -> Row:
    before, after = (sum(p.numel() for p in m.parameters()) for m in (conv, layer))
    return Row(
        name, type(conv).__name__, tuple(conv.kernel_size), layer.spec.positions_shape, before,
        after, conv.weight.element_size(),
    )  # fmt: skip


def _layer(
    conv: Any, size: tuple[int, ...], arguments: dict[str, Any], made: dict[Any, nn.Parameter]
) -> nn.Module:
    """The new layer, with the convolution's weights at every position."""
    layer = _empty(conv, size, arguments)
    kernel = conv.weight.detach().movedim((0, 1), (-1, -2))  # to (*kernel_size, .., ..)
    for name, shape in layer._parameter_shapes().items():
        original = conv.bias if name == "bias" else conv.weight
        if original is None:
            continue
        key = (id(original), name, shape)
        if key not in made:
            made[key] = nn.Parameter(_start(name, shape, original, kernel), original.requires_grad)
        setattr(layer, name, made[key])
    kind = next(each for each in LAYERS if isinstance(conv, each))
    carry_over(conv, layer, kind(1, 1, 1, device="meta"))
    return layer


def _start(name: str, shape: tuple[int, ...], original: Any, kernel: Tensor) -> Tensor:
    """Values of one parameter; in a basis, the first kernel is that of the convolution."""
    values = original.new_empty(shape)
    with torch.no_grad():
        if name == "basis":
            bound = prod(kernel.shape[:-1]) ** -0.5
            nn.init.uniform_(values, -bound, bound)
            values[0] = kernel
        elif name == "coefficients":
            values.zero_()[..., 0] = 1
        else:
            values.copy_((original if name == "bias" else kernel).detach().expand(shape))
    return values
