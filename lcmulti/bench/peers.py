"""What people use today instead, as data; a peer's framework is imported when it is run.

Each peer is given our weights in its own layout (`lcmulti.layouts`) and held to the same
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
        Of its input and output.
    needs : str
        Package it comes from.
    install : str
    axes : tuple of int
        Numbers of spatial axes it exists for; empty for any.
    holds : callable
        ``(spec, batch)`` to elements it holds in a forward pass beyond input, output and weights.
    gradient_holds : callable
        ``(spec, batch)`` to elements a training step holds beyond twice those.
    is_slow : callable
        ``(spec, batch)`` to whether building it may take more than a minute, so that it is tried
        in a process that can be ended.
    tiles : bool
        Whether it is for windows that tile the one channel there is.
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
        """Whether its package can be found."""
        return importlib.util.find_spec(self.needs) is not None

    def declines(self, spec: LocalConvSpec) -> str | None:
        """Why it has no such layer, or None."""
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
        """Whether it is made for such a geometry; left out without a word where it is not."""
        return not self.tiles or (spec.is_disjoint and spec.ndim == 1 and spec.in_channels == 1)

    def memory(self, spec: LocalConvSpec, batch: int, itemsize: int, training: bool) -> int:
        """Bytes beyond input, output and weights; what is differentiated is held twice."""
        held = self.holds(spec, batch)
        if training:
            held = 2 * held + self.gradient_holds(spec, batch)
        return held * itemsize

    def contender(self, arrays: Arrays) -> Contender:
        """Import its framework and make it."""
        module, _, function = self.load.partition(":")
        made: Contender = getattr(importlib.import_module(module), function)(arrays)
        return made


def _patches(spec: LocalConvSpec, batch: int) -> int:
    return batch * prod(spec.output_size) * spec.terms


def _products(spec: LocalConvSpec, batch: int) -> int:
    return _patches(spec, batch) * spec.filters


def _whole_inputs(spec: LocalConvSpec, batch: int) -> int:
    """TensorFlow's gradient of a slice is as large as what it was cut from, zeros around it."""
    return batch * prod(spec.output_size) * prod(spec.input_shape)


def _dense(spec: LocalConvSpec, batch: int) -> int:
    """The weights between all inputs and all outputs, their mask and their product."""
    return 3 * prod(spec.input_shape) * prod(spec.output_shape)


def _entries(spec: LocalConvSpec, batch: int) -> int:
    """Two 64-bit indices a weight, and the Python tuples they are made of."""
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
    return prod(spec.output_size) > 4000  # a slice and a product in the graph for each


def _many_weights(spec: LocalConvSpec, batch: int) -> bool:
    return prod(spec.kernel_shape) > 2_000_000  # a Python tuple for each, and they are sorted


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
"""Every peer we know."""
