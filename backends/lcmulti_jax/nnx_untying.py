"""`untie` makes the convolutions of a Flax NNX module locally connected; `retie` the opposite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, Unpack, overload

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from lcmulti.errors import ArgumentTypeError
from lcmulti.geometry.transposed import bias_shape_of
from lcmulti.untying import (
    Arguments,
    Untying,
    Where,
    chosen,
    chosen_to_retie,
    planned,
    tied,
)
from lcmulti_jax.nnx_base import Layer
from lcmulti_jax.nnx_layers import LocallyConnected
from lcmulti_jax.nnx_modules import CONVOLUTIONS, named, replaced
from lcmulti_jax.nnx_shared_weights import check_shared, share_again
from lcmulti_jax.nnx_transposed import LocallyConnectedTranspose
from lcmulti_jax.nnx_watching import normalised, watched
from lcmulti_jax.untying import STACKED, reason_to_stay, row, started

__all__ = ["retie", "untie"]


Model = TypeVar("Model", bound=nnx.Module)


class NnxArguments(Arguments, total=False):
    """Arguments of `untie`, for type checkers."""

    rngs: nnx.Rngs | None


@overload
def untie(
    model: nnx.Module,
    example_input: Any,
    *,
    dry_run: Literal[True],
    **arguments: Unpack[NnxArguments],
) -> Untying: ...
@overload
def untie(
    model: nnx.Conv,
    example_input: Any,
    *,
    dry_run: Literal[False] = ...,
    **arguments: Unpack[NnxArguments],
) -> LocallyConnected: ...
@overload
def untie(
    model: nnx.ConvTranspose,
    example_input: Any,
    *,
    dry_run: Literal[False] = ...,
    **arguments: Unpack[NnxArguments],
) -> LocallyConnectedTranspose: ...
@overload
def untie(
    model: Model,
    example_input: Any,
    *,
    dry_run: Literal[False] = ...,
    **arguments: Unpack[NnxArguments],
) -> Model: ...
@overload
def untie(
    model: Model,
    example_input: Any,
    *,
    dry_run: bool,
    **arguments: Unpack[NnxArguments],
) -> Model | Untying: ...
def untie(
    model: nnx.Module,
    example_input: Any,
    *,
    where: Where = None,
    shared_axes: Sequence[int] = (),
    rank: int | None = None,
    memory: int | str | None = None,
    implementation: str = "auto",
    dry_run: bool = False,
    tell: Callable[[str], object] | None = print,
    rngs: nnx.Rngs | None = None,
) -> Any:
    """A copy of *model* with locally connected layers, which compute what its convolutions did.

    Parameters
    ----------
    model : flax.nnx.Module
        The example is traced through it to find its `nnx.Conv` and `nnx.ConvTranspose`; nothing is
        computed or changed.
    example_input : array, tuple or dict
        Arguments for a call of the network, positional or by name.
    where : str, type, callable or a list of these, optional
        Names (``"layers.0.conv"``), patterns, classes, or ``(name, module) -> bool``. None: all.
    shared_axes, rank, implementation
        Arguments of the new layers. The first kernel of low-rank weights is that of the
        convolution.
    memory : int or str, optional
        Largest size of the new weights (``"4GiB"``). None: the memory of this machine.
    dry_run : bool, default False
        Only return what would be done.
    tell : callable or None
        Called with a table of the parameters and memory of each layer, before anything is made.
    rngs : flax.nnx.Rngs, optional
        Random numbers for the other kernels of low-rank weights.

    Returns
    -------
    flax.nnx.Module
        The copy; *model* is not changed. With *dry_run*, a `lcmulti.untying.Untying`.

    Raises
    ------
    ArgumentError
        If a convolution has inputs of two sizes (the message names both), or *where* fits none.
    TooLargeError
        If the weights take more than *memory*. The message names the layers that cost most.
    """
    if not isinstance(model, nnx.Module):
        raise ArgumentTypeError("model", "a flax.nnx.Module", model)
    arguments = {"shared_axes": shared_axes, "rank": rank, "implementation": implementation}
    there = {name: each for name, each in named(model) if isinstance(each, CONVOLUTIONS)}
    seen = watched(model, example_input)
    reasons = {id(conv): reason_to_stay(seen[name]) for name, conv in there.items()}
    reasons |= normalised(model)

    shapes: dict[str, dict[str, tuple[int, ...]]] = {}

    def row_of(name: str, conv: Any, size: tuple[int, ...]) -> Any:
        layer = _empty(conv, size, arguments)
        before = sum(each.size for each in jax.tree.leaves(nnx.state(conv, nnx.Param)))
        shapes[name] = _shapes(layer)
        return row(name, conv, layer.spec, shapes[name], before, conv.kernel[...].dtype)

    wanted = chosen(where, there.items())
    plan, sizes = planned(
        wanted,
        {name: each.sizes for name, each in seen.items()},
        where is not None,
        lambda conv: _unfit(conv) or reasons[id(conv)],
        row_of,
    )
    check_shared(model, shapes)
    if dry_run:
        return plan
    plan.announce(tell, memory)
    rngs = nnx.Rngs(0) if rngs is None else rngs

    known: dict[tuple[object, ...], nnx.Variable[Any]] = {}

    def made(name: str, conv: Any) -> Any:
        layer = _empty(conv, sizes[name], arguments)
        bias = None if conv.bias is None else conv.bias[...]
        values = started(_shapes(layer), _kernel_of(conv), bias, rngs.params())
        for label, value in values.items():
            original = conv.bias if label == "bias" else conv.kernel
            key = (id(original), label)  # `check_shared` has seen that it has one shape
            setattr(layer, label, known.setdefault(key, nnx.Param(value)))
        return layer

    return replaced(model, dict.fromkeys(sizes, made))


@overload
def retie(
    model: LocallyConnected, *, where: Where = ..., tolerance: float | None = ...
) -> nnx.Conv: ...
@overload
def retie(
    model: LocallyConnectedTranspose, *, where: Where = ..., tolerance: float | None = ...
) -> nnx.ConvTranspose: ...
@overload
def retie(model: Model, *, where: Where = ..., tolerance: float | None = ...) -> Model: ...
def retie(model: nnx.Module, *, where: Where = None, tolerance: float | None = 0.0) -> Any:
    """A copy of *model* in which the locally connected layers are convolutions again.

    Parameters
    ----------
    model : flax.nnx.Module
    where : str, type, callable or a list of these, optional
        Which layers; as for `untie`.
    tolerance : float or None, default 0
        Largest difference of a weight between two positions. None takes the mean over positions,
        however much they differ.

    Returns
    -------
    flax.nnx.Module
        The copy; *model* is not changed.

    Raises
    ------
    ArgumentError
        If weights differ more (the message names the layer and the difference), or if Flax has no
        convolution that is like a layer.
    """
    there = [(name, each) for name, each in named(model) if isinstance(each, Layer)]
    take = chosen_to_retie(where, there, model)
    convolutions = {}
    known: dict[tuple[object, ...], nnx.Variable[Any]] = {}
    for name, layer in take:
        convolutions[name] = conv = tied(name, layer, tolerance)
        share_again(layer, conv, known)
    return replaced(model, {name: lambda name, _: convolutions[name] for name, _ in take})


def _unfit(conv: Any) -> str | None:
    """Why a convolution cannot be untied, or None."""
    kind = nnx.Conv if isinstance(conv, nnx.Conv) else nnx.ConvTranspose
    if type(conv).__call__ is not kind.__call__:
        return f"{type(conv).__name__} computes something of its own"
    if conv.kernel[...].ndim != len(conv.kernel_size) + 2:
        return STACKED
    if getattr(conv, "mask", None) is not None:
        return "its weights have a mask"
    if kind is nnx.ConvTranspose:
        known = isinstance(conv.padding, str) and conv.padding.upper() in ("SAME", "VALID")
        return None if known else f"its padding is {conv.padding!r}, not 'SAME' or 'VALID'"
    spread = conv.input_dilation
    if any(n != 1 for n in (spread if isinstance(spread, (tuple, list)) else (spread,))):
        return "its input is dilated"
    plain = conv.conv_general_dilated is lax.conv_general_dilated
    return None if plain else "it computes by a function of its own"


def _kernel_of(conv: Any) -> Any:
    """``(*kernel_size, channels of a group, filters)``, transposed ``(.., filters, channels)``."""
    kernel = conv.kernel[...]
    if isinstance(conv, nnx.Conv):
        return kernel
    if conv.transpose_kernel:  # as the kernel of the convolution that it is the adjoint of
        return kernel
    return jnp.flip(kernel, tuple(range(kernel.ndim - 2))).swapaxes(-1, -2)


def _empty(conv: Any, size: tuple[int, ...], arguments: dict[str, Any]) -> Any:
    """The new layer, without memory for its weights."""
    transposed = isinstance(conv, nnx.ConvTranspose)
    given = {
        "padding": conv.padding, "kernel_dilation": conv.kernel_dilation,
        "use_bias": conv.bias is not None, "dtype": conv.dtype, "param_dtype": conv.param_dtype,
        "precision": conv.precision,
    }  # fmt: skip
    if not transposed:
        given["feature_group_count"] = conv.feature_group_count
    kind = LocallyConnectedTranspose if transposed else LocallyConnected
    return nnx.eval_shape(
        lambda: kind(
            conv.in_features,
            conv.out_features,
            conv.kernel_size,
            size,
            conv.strides,
            **given,
            **arguments,
            rngs=nnx.Rngs(0),
        )
    )


def _shapes(layer: Any) -> dict[str, tuple[int, ...]]:
    transposed = isinstance(layer, LocallyConnectedTranspose)
    spec = layer.spec
    shapes = {"kernel": spec.kernel_shape}
    if layer.rank is not None:
        taps = spec.kernel_shape[spec.ndim :]
        shapes = {
            "basis": (layer.rank, *(1,) * spec.ndim, *taps),
            "coefficients": (*spec.positions_shape, layer.rank),
        }
    if layer.bias is not None:
        shapes["bias"] = bias_shape_of(spec) if transposed else spec.bias_shape
    return shapes
