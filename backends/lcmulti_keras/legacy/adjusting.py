"""What changes in a layer's configuration before Keras 3 takes it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

from lcmulti_keras.axes import moved_axes
from lcmulti_keras.legacy.allowed import DROPPED

__all__ = ["ADJUSTED", "droppable", "parameters"]

Config = dict[str, Any]


def droppable(key: str, value: Any) -> bool:
    """Whether an option that Keras 3 has no more changes nothing with this value."""
    if value is None or value is False:
        return True
    neutral = DROPPED.get(key, ())
    return neutral is None or value in neutral


@cache
def parameters(cls: type) -> frozenset[str]:
    """Names of the arguments a class takes, those it hands to its bases included."""
    names: set[str] = set()
    for base in cls.__mro__:
        if base is object or "__init__" not in vars(base):
            continue
        signature = inspect.signature(base.__init__).parameters  # type: ignore[misc]
        names |= {
            n for n, p in signature.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        }
        if not any(p.kind is p.VAR_KEYWORD for p in signature.values()):
            break
    return frozenset(names - {"self"})


def _local(config: Config) -> str | None:
    """Keras 2's ``same`` is a rule of its own, and its constraints saw a kernel of other axes."""
    implementation = config.setdefault("implementation", 1)
    padding = config.get("padding", "valid")
    config["padding"] = "keras_same" if padding == "same" else padding
    constraint = config.get("kernel_constraint")
    n = len(config.get("kernel_size") or ())
    ours = _axes(implementation, n, config.get("data_format") == "channels_first")
    if not (isinstance(constraint, dict) and "axis" in (constraint.get("config") or {})):
        return None
    config["implementation"] = "auto"  # the axes are not those of a number of Keras 2 any more
    try:
        config["kernel_constraint"] = moved_axes(constraint, lambda axis: ours[axis % len(ours)])
    except (TypeError, ZeroDivisionError):  # no such axis here
        config["kernel_constraint"] = None
        return f"the kernel constraint of {config.get('name')} along its output"
    return None


def _axes(implementation: Any, n: int, channels_first: bool) -> tuple[Any, ...]:
    """Axes of lcmulti's kernel that each axis of Keras 2's was, None where it was none.

    Implementation 2 keeps every input beside every output: along an input axis it has the taps of
    a window (and zeros, of no connection), along an output axis nothing that belongs together.
    """
    window, channels, filters = range(n, 2 * n), (2 * n,), (2 * n + 1,)
    taps, outputs = [(axis,) for axis in window], [None] * n
    if implementation == 1:
        return range(n), (*window, *channels), filters
    if implementation == 3:
        return (range(2 * n + 2),)
    if channels_first:
        return channels, *taps, filters, *outputs
    return *taps, channels, *outputs, filters


def _batch_normalization(config: Config) -> None:
    if isinstance(config.get("axis"), list) and len(config["axis"]) == 1:
        (config["axis"],) = config["axis"]


def _renaming(old: str, new: str) -> Callable[[Config], str | None]:
    def rename(config: Config) -> None:
        if old in config:
            config[new] = config.pop(old)

    return rename


def _gru(config: Config) -> None:
    config.setdefault("reset_after", False)  # what there was before there was a choice


def _attention_shapes(config: Config) -> None:
    for key in ("query_shape", "key_shape", "value_shape"):  # known once it is called
        config.pop(key, None)


def _softmax(config: Config) -> None:
    if isinstance(config.get("axis"), list):
        config["axis"] = tuple(config["axis"])


def _synchronized(config: Config) -> None:
    _batch_normalization(config)
    config["synchronized"] = True


ADJUSTED: dict[str, Callable[[Config], str | None]] = {
    "LocallyConnected1D": _local,
    "LocallyConnected2D": _local,
    "BatchNormalization": _batch_normalization,
    "SyncBatchNormalization": _synchronized,
    "LeakyReLU": _renaming("alpha", "negative_slope"),
    "ThresholdedReLU": _renaming("theta", "threshold"),
    "Softmax": _softmax,
    "MultiHeadAttention": _attention_shapes,
    "GRU": _gru,
    "GRUCell": _gru,
}
"""By Keras 2's class name; each changes a configuration in place and may say what is lost."""
