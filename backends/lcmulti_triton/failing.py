"""Kernels that Triton could not compile or load here; another implementation serves such calls."""

from __future__ import annotations

import warnings
from typing import NamedTuple

from lcmulti.plugins.contract import Map
from lcmulti_triton.choice import nominal
from lcmulti_triton.layer import Layer

__all__ = ["NEXT", "Kind", "failures", "kind_of", "note", "reason_for"]

NEXT = "blocked"
"""Serves calls that turn out at run time not to be servable here."""

failures: dict[Kind | int, str] = {}
"""Why, by kind of layer; by the number of a GPU on which Triton does not start at all."""


class Kind(NamedTuple):
    """What layers have in common that differ in their sizes and memory order alone.

    Parameters
    ----------
    map : {"forward", "input_grad", "kernel_grad"}
    dtype : str
    device : int or None
        Number of the GPU; None in the interpreter.
    settings : tuple of str
        ``precision`` and ``tiles`` of the settings.
    batch : int
        The batch that stands for its class.
    channels, filters, groups : int
        Number of channels and filters of one group, and of groups.
    windows : tuple of (int, int, int, bool)
        Taps, stride and dilation of each axis, and whether its positions share their weights.
    """

    map: Map
    dtype: str
    device: int | None
    settings: tuple[str, str]
    batch: int
    channels: int
    filters: int
    groups: int
    windows: tuple[tuple[int, int, int, bool], ...]

    def __str__(self) -> str:
        where = "" if self.device is None else f" on GPU {self.device}"
        size = "x".join(str(taps) for taps, *_ in self.windows)
        return (
            f"{self.map} in {self.dtype}{where} for windows of {size}, {self.channels} channels "
            f"and {self.filters} filters a group"
        )


def kind_of(layer: Layer, device: int | None, settings: tuple[str, str]) -> Kind:
    """The kind of layer, for which one failure is enough."""
    windows = tuple((a.kernel, a.stride, a.dilation, not a.w) for a in layer.axes)
    return Kind(
        layer.map, layer.dtype, device, settings, nominal(layer).batch, layer.channels,
        layer.filters, layer.groups, windows,
    )  # fmt: skip


def reason_for(kind: Kind) -> str | None:
    """A sentence that says why kernels of this kind do not run here, or None."""
    everywhere = None if kind.device is None else failures.get(kind.device)
    return everywhere or failures.get(kind)


def note(kind: Kind, error: Exception, is_started: bool) -> None:
    """Remember a failure, and warn of it once.

    Parameters
    ----------
    is_started : bool
        Whether Triton knows the GPU. If not (it finds no C compiler, say), nothing compiles there.
    """
    said = (f"{type(error).__name__}: {error}".strip().splitlines() or [""])[0]
    if is_started or kind.device is None:
        reason, of = f"Triton failed to compile {kind} ({said})", "such calls"
        failures[kind] = reason
    else:
        reason, of = f"Triton does not start on GPU {kind.device} ({said})", "its calls"
        failures[kind.device] = reason
    warnings.warn(f"lcmulti: {reason}; {NEXT!r} serves {of}", stacklevel=2)
