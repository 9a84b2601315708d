"""`untie` makes the convolutions of a Flax NNX module locally connected; `retie` the opposite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from lcmulti.errors import ArgumentError, ArgumentTypeError, described
from lcmulti.geometry.transposed import bias_shape_of
from lcmulti.untying import chosen
from lcmulti_jax.nnx_base import Layer
from lcmulti_jax.nnx_layers import LocallyConnected
from lcmulti_jax.nnx_transposed import LocallyConnectedTranspose
from lcmulti_jax.untying import called, means, planned, row, started

__all__ = ["retie", "untie"]

CONVOLUTIONS = (nnx.Conv, nnx.ConvTranspose)


def untie(
    model: nnx.Module,
    example_input: Any,
    *,
    where: Any = None,
    shared_axes: Any = (),
    rank: int | None = None,
    memory: Any = None,
    implementation: str = "auto",
    dry_run: bool = False,
    tell: Callable[[str], Any] | None = print,
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
        With *dry_run* a `lcmulti.untying.Untying`.

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
    there = {name: each for name, each in _named(model) if isinstance(each, CONVOLUTIONS)}
    seen = _sizes_seen(model, example_input)

    def row_of(name: str, conv: Any, size: tuple[int, ...]) -> Any:
        layer = _empty(conv, size, arguments)
        before = sum(each.size for each in jax.tree.leaves(nnx.state(conv, nnx.Param)))
        return row(name, conv, layer.spec, _shapes(layer), before, conv.kernel[...].dtype)

    plan, sizes = planned(there, seen, where, _unfit, row_of)
    if dry_run:
        return plan
    if tell is not None:
        tell(str(plan))
    plan.require(memory)
    rngs = nnx.Rngs(0) if rngs is None else rngs

    def made(name: str, conv: Any) -> Any:
        layer = _empty(conv, sizes[name], arguments)
        bias = None if conv.bias is None else conv.bias[...]
        values = started(_shapes(layer), _kernel_of(conv), bias, rngs.params())
        for label, value in values.items():
            setattr(layer, label, nnx.Param(value))
        return layer

    return _replaced(model, dict.fromkeys(sizes, made))


def retie(model: nnx.Module, *, where: Any = None, tolerance: float | None = 0.0) -> nnx.Module:
    """A copy of *model* in which the locally connected layers are convolutions again.

    Parameters
    ----------
    model : flax.nnx.Module
    where : as for `untie`
    tolerance : float or None, default 0
        Largest difference of a weight between two positions. None takes the mean over positions,
        however much they differ.

    Raises
    ------
    ArgumentError
        If weights differ more (the message names the layer and the difference), or if no
        convolution of Flax has the padding of a layer.
    """
    there = [(name, each) for name, each in _named(model) if isinstance(each, Layer)]
    take = chosen(where, there)
    if not take:
        raise ArgumentError("model", "a network with locally connected layers", model)
    found = {}
    for name, layer in take:
        weights = {
            "kernel": layer.full_kernel(),
            "bias": None if layer.bias is None else layer.bias[...],
        }
        found[name] = means(name, weights, tuple(range(layer.spec.ndim)), tolerance)
    return _replaced(
        model, {name: lambda name, layer: _convolution(layer, found[name]) for name, _ in take}
    )


def _children(module: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(module, (list, tuple)) or (
        hasattr(module, "__len__") and isinstance(module, nnx.List)
    ):
        yield from enumerate(module)
    elif isinstance(module, dict):
        yield from module.items()
    elif isinstance(module, nnx.Module):
        yield from vars(module).items()


def _named(model: Any) -> Iterator[tuple[str, Any]]:
    """Modules by name, each only once."""
    known: set[int] = set()

    def walk(name: str, value: Any) -> Iterator[tuple[str, Any]]:
        if id(value) in known:
            return
        if isinstance(value, nnx.Module):
            known.add(id(value))
            yield name, value
            if isinstance(value, (*CONVOLUTIONS, Layer)):
                return
        for key, child in _children(value):
            if isinstance(child, (nnx.Module, list, tuple, dict)) and not str(key).startswith(
                "_pytree"
            ):
                yield from walk(f"{name}.{key}" if name else str(key), child)

    yield from walk("", model)


def _swapped(value: Any, new: dict[int, Any], known: set[int]) -> Any:
    """The value with modules replaced wherever it refers to them; modules change in place."""
    if id(value) in new:
        return new[id(value)]
    if isinstance(value, tuple):
        return type(value)(_swapped(each, new, known) for each in value)
    if id(value) in known:
        return value
    if isinstance(value, (nnx.Module, list, dict)):
        known.add(id(value))
        for key, child in list(_children(value)):
            if not isinstance(child, (nnx.Module, list, tuple, dict)):
                continue
            replaced = _swapped(child, new, known)
            if replaced is child:
                continue
            if isinstance(value, (list, dict, nnx.List)):
                value[key] = replaced
            else:
                setattr(value, key, replaced)
    return value


def _replaced(model: Any, makers: dict[str, Callable[[str, Any], Any]]) -> Any:
    copy = nnx.clone(model)
    modules = dict(_named(copy))
    new = {id(modules[name]): make(name, modules[name]) for name, make in makers.items()}
    return _swapped(copy, new, set())


class _Watched(nnx.Module):
    """A convolution that records the size of its input."""

    def __init__(self, conv: Any, sizes: list[tuple[int, ...]]) -> None:
        self.conv = conv
        self._note = nnx.static(sizes.append) if hasattr(nnx, "static") else sizes.append

    def __call__(self, inputs: Any, *arguments: Any, **named: Any) -> Any:
        axes = len(self.conv.kernel_size)
        note = getattr(self._note, "value", self._note)
        note(tuple(map(int, inputs.shape[-axes - 1 : -1])))
        return self.conv(inputs, *arguments, **named)


def _sizes_seen(model: Any, example: Any) -> dict[str, list[tuple[int, ...]]]:
    seen: dict[str, list[tuple[int, ...]]] = {}
    graph, state = nnx.split(model)

    def run(state: Any, example: Any) -> None:
        copy = nnx.merge(graph, state)
        watched = {
            id(each): _Watched(each, seen.setdefault(name, []))
            for name, each in _named(copy)
            if isinstance(each, CONVOLUTIONS)
        }
        called(_swapped(copy, watched, set()), example)

    jax.eval_shape(run, state, example)
    return {name: sizes for name, sizes in seen.items() if sizes}


def _unfit(conv: Any) -> str | None:
    """Why a convolution cannot be untied, or None."""
    kind = nnx.Conv if isinstance(conv, nnx.Conv) else nnx.ConvTranspose
    if type(conv).__call__ is not kind.__call__:
        return f"{type(conv).__name__} computes something of its own"
    if getattr(conv, "mask", None) is not None:
        return "its weights have a mask"
    if kind is nnx.Conv:
        spread = conv.input_dilation
        if any(n != 1 for n in (spread if isinstance(spread, (tuple, list)) else (spread,))):
            return "its input is dilated"
        if conv.conv_general_dilated is not lax.conv_general_dilated:
            return "it computes by a function of its own"
    elif not isinstance(conv.padding, str) or conv.padding.upper() not in ("SAME", "VALID"):
        return f"its padding is {conv.padding!r}, not 'SAME' or 'VALID'"
    return None


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


def _with_rngs(make: Any) -> Any:
    return make(rngs=nnx.Rngs(0))


def _convolution(layer: Any, weights: dict[str, Any]) -> Any:
    spec, transposed = layer.spec, isinstance(layer, LocallyConnectedTranspose)
    names: tuple[Any, ...] = ("SAME", "VALID") if transposed else (spec.padding,)
    if spec.padding_mode != "zeros":
        names = (spec.padding_mode.upper(),) if spec.padding_mode in ("circular", "reflect") else ()
    for padding in names:
        features = (
            (spec.filters, spec.in_channels) if transposed else (spec.in_channels, spec.filters)
        )
        given = {
            "strides": spec.strides, "padding": padding, "kernel_dilation": spec.dilation,
            "use_bias": layer.bias is not None, "dtype": layer.dtype,
            "param_dtype": layer.param_dtype, "precision": layer.precision,
        }  # fmt: skip
        if transposed:
            given["transpose_kernel"] = True
        else:
            given["feature_group_count"] = spec.groups
        kind = nnx.ConvTranspose if transposed else nnx.Conv
        make = partial(kind, *features, spec.kernel_size, **given)
        conv = nnx.eval_shape(partial(_with_rngs, make))
        size = spec.output_size if transposed else spec.input_size
        if _empty(conv, size, {"shared_axes": spec.shared_axes}).spec != spec:
            continue
        for label, value in weights.items():
            setattr(conv, label, nnx.Param(value))
        return conv
    shown = described(f"{spec.padding} in mode {spec.padding_mode!r}")
    raise ArgumentError("padding", "one that a convolution of Flax has", shown)
