"""`untie` makes the convolutions of an Equinox module locally connected; `retie` the opposite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, Unpack, overload

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from lcmulti.errors import ArgumentTypeError
from lcmulti.untying import (
    Arguments,
    Untying,
    Where,
    arguments_of,
    chosen,
    chosen_to_retie,
    planned,
    tied,
)
from lcmulti_jax import equinox_layers as layers
from lcmulti_jax.compat import names_in
from lcmulti_jax.conversion import as_adjoint
from lcmulti_jax.equinox_transposed import LocallyConnectedTranspose
from lcmulti_jax.untying import STACKED, Seen, reason_to_stay, row, started

__all__ = ["LAYERS", "named_of", "retie", "untie"]

CONVOLUTIONS = (eqx.nn.Conv, eqx.nn.ConvTranspose)
LAYERS = (layers.LocallyConnected, LocallyConnectedTranspose)


Model = TypeVar("Model", bound=Callable[..., Any])


class EquinoxArguments(Arguments, total=False):
    """Arguments of `untie`, for type checkers."""

    key: Any


@overload
def untie(
    model: Callable[..., Any],
    example_input: Any,
    *,
    dry_run: Literal[True],
    **arguments: Unpack[EquinoxArguments],
) -> Untying: ...
@overload
def untie(
    model: eqx.nn.Conv,
    example_input: Any,
    *,
    dry_run: Literal[False] = ...,
    **arguments: Unpack[EquinoxArguments],
) -> layers.LocallyConnected: ...
@overload
def untie(
    model: eqx.nn.ConvTranspose,
    example_input: Any,
    *,
    dry_run: Literal[False] = ...,
    **arguments: Unpack[EquinoxArguments],
) -> LocallyConnectedTranspose: ...
@overload
def untie(
    model: Model,
    example_input: Any,
    *,
    dry_run: Literal[False] = ...,
    **arguments: Unpack[EquinoxArguments],
) -> Model: ...
@overload
def untie(
    model: Model,
    example_input: Any,
    *,
    dry_run: bool,
    **arguments: Unpack[EquinoxArguments],
) -> Model | Untying: ...
def untie(
    model: Any,
    example_input: Any,
    *,
    where: Where = None,
    shared_axes: Sequence[int] = (),
    rank: int | None = None,
    memory: int | str | None = None,
    implementation: str = "auto",
    dry_run: bool = False,
    tell: Callable[[str], object] | None = print,
    key: Any = None,
) -> Any:
    """A copy of *model* with locally connected layers, which compute what its convolutions did.

    Parameters
    ----------
    model : equinox.Module
        A module, or any tree of modules. The example is traced through it to find its convolutions;
        nothing is computed.
    example_input : array, tuple or dict
        Arguments for a call of the network, positional or by name: one sample, as in Equinox.
    where : str, type, callable or a list of these, optional
        Names (``"layers.0"``), patterns, classes, or ``(name, module) -> bool``. None: all.
    shared_axes, rank, implementation
        Arguments of the new layers. The first kernel of low-rank weights is that of the
        convolution.
    memory : int or str, optional
        Largest size of the new weights (``"4GiB"``). None: the memory of this machine.
    dry_run : bool, default False
        Only return what would be done.
    tell : callable or None
        Called with a table of the parameters and memory of each layer, before anything is made.
    key : PRNG key, optional
        Key for the other kernels of low-rank weights.

    Returns
    -------
    equinox.Module
        The copy; *model* is not changed. With *dry_run*, a `lcmulti.untying.Untying`.

    Raises
    ------
    ArgumentError
        If a convolution has inputs of two sizes (the message names both), or *where* fits none.
    TooLargeError
        If the weights take more than *memory*. The message names the layers that cost most.
    """
    if not callable(model):
        raise ArgumentTypeError("model", "an equinox.Module that can be called", model)
    arguments = {"shared_axes": shared_axes, "rank": rank, "implementation": implementation}
    there = dict(named_of(model, CONVOLUTIONS))
    seen = _seen(model, example_input)
    reasons = {id(conv): reason_to_stay(seen[name]) for name, conv in there.items()}

    def row_of(name: str, conv: Any, size: tuple[int, ...]) -> Any:
        layer = _empty(conv, size, arguments)
        before = sum(each.size for each in (conv.weight, conv.bias) if each is not None)
        return row(name, conv, layer.spec, _shapes(layer), before, conv.weight.dtype)

    wanted = chosen(where, there.items())
    plan, sizes = planned(
        wanted,
        {name: each.sizes for name, each in seen.items()},
        where is not None,
        lambda conv: _unfit(conv) or reasons[id(conv)],
        row_of,
    )
    if dry_run:
        return plan
    plan.announce(tell, memory)
    keys = jax.random.split(jax.random.key(0) if key is None else key, len(sizes))
    new = {}
    for name, each in zip(sizes, keys, strict=True):
        conv = there[name]
        layer = _empty(conv, sizes[name], arguments)
        bias = None if conv.bias is None else conv.bias.reshape(-1)
        values = started(_shapes(layer), _kernel_of(conv), bias, each)
        new[name] = _with(layer, values)
    return _replaced(model, CONVOLUTIONS, new)


@overload
def retie(
    model: layers.LocallyConnected, *, where: Where = ..., tolerance: float | None = ...
) -> eqx.nn.Conv: ...
@overload
def retie(
    model: LocallyConnectedTranspose, *, where: Where = ..., tolerance: float | None = ...
) -> eqx.nn.ConvTranspose: ...
@overload
def retie(model: Model, *, where: Where = ..., tolerance: float | None = ...) -> Model: ...
def retie(model: Any, *, where: Where = None, tolerance: float | None = 0.0) -> Any:
    """A copy of *model* in which the locally connected layers are convolutions again.

    Parameters
    ----------
    model : equinox.Module
    where : str, type, callable or a list of these, optional
        Which layers; as for `untie`.
    tolerance : float or None, default 0
        Largest difference of a weight between two positions. None takes the mean over positions,
        however much they differ.

    Returns
    -------
    equinox.Module
        The copy; *model* is not changed.

    Raises
    ------
    ArgumentError
        If weights differ more. The message names the layer and the difference.
    """
    there = list(named_of(model, LAYERS))
    take = chosen_to_retie(where, there, model)
    return _replaced(model, LAYERS, {name: tied(name, layer, tolerance) for name, layer in take})


def _is(kinds: tuple[type, ...]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


def named_of(model: Any, kinds: tuple[type, ...]) -> list[tuple[str, Any]]:
    """Modules of these kinds by the paths they have in the model."""
    found, _ = jax.tree_util.tree_flatten_with_path(model, is_leaf=_is(kinds))
    return [(".".join(names_in(path)), each) for path, each in found if isinstance(each, kinds)]


def _replaced(model: Any, kinds: tuple[type, ...], new: dict[str, Any]) -> Any:
    def swap(path: Any, value: Any) -> Any:
        return new.get(".".join(names_in(path)), value) if isinstance(value, kinds) else value

    return jax.tree_util.tree_map_with_path(swap, model, is_leaf=_is(kinds))


class _Watched(eqx.Module):
    """A convolution that records the sizes of its inputs, and whether others read its weights."""

    conv: Any
    seen: Seen = eqx.field(static=True)

    def __call__(self, x: Array, **named: Any) -> Any:
        self.seen.sizes.append(tuple(map(int, x.shape[1:])))
        return self.conv(x, **named)

    def __getattr__(self, name: str) -> Any:
        if name in ("conv", "seen") or name.startswith("__"):
            raise AttributeError(name)
        self.seen.elsewhere |= name in ("weight", "bias")
        return getattr(self.conv, name)


def _seen(model: Any, example: Any) -> dict[str, Seen]:
    seen = {name: Seen() for name, _ in named_of(model, CONVOLUTIONS)}
    watched = {name: _Watched(conv, seen[name]) for name, conv in named_of(model, CONVOLUTIONS)}
    arguments, keywords = arguments_of(example)
    eqx.filter_eval_shape(_replaced(model, CONVOLUTIONS, watched), *arguments, **keywords)
    return seen


def _unfit(conv: Any) -> str | None:
    """Why a convolution cannot be untied, or None."""
    axes = conv.num_spatial_dims + 2
    if getattr(conv.weight, "ndim", axes) != axes:
        return STACKED
    if isinstance(conv, eqx.nn.ConvTranspose):
        if type(conv).__call__ is not eqx.nn.ConvTranspose.__call__:
            return f"{type(conv).__name__} computes something of its own"
        padded = conv.padding_mode.upper() != "ZEROS"
        return f"it pads with {conv.padding_mode!r}" if padded else None
    if type(conv).__call__ is not eqx.nn.Conv.__call__:
        return f"{type(conv).__name__} computes something of its own"
    return None


def _kernel_of(conv: Any) -> Any:
    """``(*kernel_size, channels of a group, filters)``, transposed ``(.., filters, channels)``."""
    kernel = jnp.moveaxis(conv.weight, (0, 1), (-1, -2))
    transposed = isinstance(conv, eqx.nn.ConvTranspose)
    return as_adjoint(kernel, conv.groups) if transposed else kernel


def _empty(conv: Any, size: tuple[int, ...], arguments: dict[str, Any]) -> Any:
    """The new layer, without memory for its weights."""
    if isinstance(conv, eqx.nn.ConvTranspose):
        return eqx.filter_eval_shape(
            lambda: LocallyConnectedTranspose(
                conv.num_spatial_dims, conv.in_channels, conv.out_channels, conv.kernel_size, size,
                conv.stride, conv.output_padding, conv.padding, conv.dilation, conv.groups,
                conv.use_bias, dtype=conv.weight.dtype, key=jax.random.key(0), **arguments,
            )
        )  # fmt: skip
    return eqx.filter_eval_shape(
        lambda: layers.LocallyConnected(
            conv.num_spatial_dims,
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            size,
            stride=conv.stride,
            padding=conv.padding,
            dilation=conv.dilation,
            groups=conv.groups,
            use_bias=conv.bias is not None,
            padding_mode=conv.padding_mode,
            dtype=conv.weight.dtype,
            key=jax.random.key(0),
            **arguments,
        )
    )


def _shapes(layer: Any) -> dict[str, tuple[int, ...]]:
    named = {"kernel": layer.weight, "basis": layer.basis, "coefficients": layer.coefficients}
    named["bias"] = layer.bias
    return {name: each.shape for name, each in named.items() if each is not None}


def _with(module: Any, values: dict[str, Any]) -> Any:
    """The module, with arrays in place of abstract parameters."""
    names = ["weight" if name == "kernel" else name for name in values]
    return eqx.tree_at(
        lambda each: [getattr(each, name) for name in names], module, list(values.values())
    )
