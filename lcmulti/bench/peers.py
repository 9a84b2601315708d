"""Peers: what people use today instead. As data; a framework is imported when a peer is run.

Each peer gets the same weights in its own layout (`lcmulti.layouts`) and must give the same
outputs.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

from lcmulti.bench.contenders import Contender
from lcmulti.bench.workloads import Arrays
from lcmulti.geometry.spec import LocalConvSpec

__all__ = ["PEERS", "Peer"]


def _none(spec: LocalConvSpec, batch: int) -> int:
    return 0


@dataclass(frozen=True)
class Peer:
    """A peer.

    Parameters
    ----------
    name, backend : str
        *backend* is the framework whose arrays it computes on.
    load : str
        ``"module:function"`` of ``(arrays) -> Contender``.
    data_format : str
        Data format of its input and output.
    needs : str
        Import name of its package.
    install : str
    axes : tuple of int
        Numbers of spatial axes it supports; empty for any.
    holds : callable
        ``(spec, batch) -> int``: elements a forward pass holds beyond input, output and weights.
    gradient_holds : callable
        ``(spec, batch) -> int``: elements that a training step holds beyond twice those.
    is_slow : callable
        ``(spec, batch) -> bool``: whether building it may take more than a minute. It is then
        tried in another process, which can be ended.
    tiles : bool
        Whether it supports only windows that tile the input, of one channel.
    """

    name: str
    backend: str
    load: str
    data_format: str
    needs: str
    install: str
    axes: tuple[int, ...] = ()
    holds: Callable[[LocalConvSpec, int], int] = _none
    gradient_holds: Callable[[LocalConvSpec, int], int] = _none
    is_slow: Callable[[LocalConvSpec, int], bool] = lambda spec, batch: False
    tiles: bool = False

    def is_installed(self) -> bool:
        """Whether its package is installed."""
        return importlib.util.find_spec(self.needs) is not None

    def declines(self, spec: LocalConvSpec) -> str | None:
        """Why it does not support such a layer, or None."""
        if self.axes and spec.ndim not in self.axes:
            return f"exists in {' and '.join(f'{n}D' for n in self.axes)} alone"
        if spec.groups > 1:
            return "has no groups"
        if any(d > 1 for d in spec.dilation):
            return "has no dilation"
        if spec.shared_axes:
            return "shares no axis"
        if spec.padding_mode != "zeros" and any(map(any, spec.padding)):
            return "pads with zeros alone"
        return None

    def applies(self, spec: LocalConvSpec) -> bool:
        """Whether it is made for such a geometry; if not, it is left out silently."""
        return not self.tiles or (spec.is_disjoint and spec.ndim == 1 and spec.in_channels == 1)

    def memory(self, spec: LocalConvSpec, batch: int, itemsize: int, training: bool) -> int:
        """Bytes it holds beyond input, output and weights; differentiation holds them twice."""
        held = self.holds(spec, batch)
        if training:
            held = 2 * held + self.gradient_holds(spec, batch)
        return held * itemsize

    def contender(self, arrays: Arrays) -> Contender:
        """Import its framework and make a contender."""
        module, _, function = self.load.partition(":")
        made: Contender = getattr(importlib.import_module(module), function)(arrays)
        return made


def _patches(spec: LocalConvSpec, batch: int) -> int:
    return batch * prod(spec.output_size) * spec.terms


def _products(spec: LocalConvSpec, batch: int) -> int:
    return _patches(spec, batch) * spec.filters


def _whole_inputs(spec: LocalConvSpec, batch: int) -> int:
    """TensorFlow's gradient of a slice has the size of the whole array, filled with zeros."""
    return batch * prod(spec.output_size) * prod(spec.input_shape)


def _dense(spec: LocalConvSpec, batch: int) -> int:
    """The dense weights between all inputs and all outputs, their mask, and the product of both."""
    return 3 * prod(spec.input_shape) * prod(spec.output_shape)


def _entries(spec: LocalConvSpec, batch: int) -> int:
    """Two 64-bit indices for each weight, and the Python tuples they are made from."""
    return 36 * prod(spec.kernel_shape)


_TORCH, _JAX, _TF = "lcmulti.bench.torch_peers", "lcmulti.bench.jax_peers", "lcmulti.bench.tf_peers"
_FIRST, _LAST = "channels_first", "channels_last"


def _torch(name: str, function: str, *facts: Any, **more: Any) -> Peer:
    install = "pip install 'lcmulti[torch]'"
    return Peer(name, "torch", f"{_TORCH}:{function}", _FIRST, "torch", install, *facts, **more)


def _jax(name: str, function: str, extra: str, *facts: Any, **more: Any) -> Peer:
    install = f"pip install 'lcmulti[{extra}]'"
    return Peer(name, "jax", f"{_JAX}:{function}", _LAST, extra, install, *facts, **more)


def _tf(name: str, function: str, needs: str, *facts: Any, **more: Any) -> Peer:
    install = f"pip install 'lcmulti[{'legacy' if needs == 'tf_keras' else needs}]'"
    return Peer(name, "tensorflow", f"{_TF}:{function}", _LAST, needs, install, *facts, **more)


def _many_positions(spec: LocalConvSpec, batch: int) -> bool:
    return prod(spec.output_size) > 4000  # the graph has a slice and a product for each position


def _many_weights(spec: LocalConvSpec, batch: int) -> bool:
    return prod(spec.kernel_shape) > 2_000_000  # a Python tuple for each weight, and a sort


PEERS = (
    _torch("unfold+einsum", "unfold_einsum", (1, 2), _patches),
    _torch("views+einsum", "views_einsum", (), _patches),
    _torch("forum recipe", "forum_recipe", (2,), _products),
    _torch("EIR einsum", "eir_einsum", tiles=True),
    _jax("lax local", "lax_local", "jax", (), _patches),
    _jax("Flax ConvLocal", "conv_local", "flax", (), _patches),
    _jax("EIR einsum", "eir_einsum", "jax", tiles=True),
    _tf("tf_keras 1", "keras_1", "tf_keras", (1, 2), _patches, _whole_inputs, _many_positions),
    _tf("tf_keras 2", "keras_2", "tf_keras", (1, 2), _dense),
    _tf("tf_keras 3", "keras_3", "tf_keras", (1, 2), _entries, is_slow=_many_weights),
    _tf("EIR einsum", "eir_einsum", "tensorflow", tiles=True),
)
"""Every known peer."""
