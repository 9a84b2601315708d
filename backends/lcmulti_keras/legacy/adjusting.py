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


def _local(config: Config) -> None:
    """Keras 2's ``same`` is a rule of its own, and its constraints saw a kernel of three axes."""
    implementation = config.setdefault("implementation", 1)
    padding = config.get("padding", "valid")
    config["padding"] = "keras_same" if padding == "same" else padding
    n = len(config.get("kernel_size") or ())
    ours = {0: range(n), 1: range(n, 2 * n + 1), 2: (2 * n + 1,)}
    if implementation == 1:
        config["kernel_constraint"] = moved_axes(
            config.get("kernel_constraint"), lambda axis: ours.get(axis % 3, ())
        )


def _batch_normalization(config: Config) -> None:
    if isinstance(config.get("axis"), list) and len(config["axis"]) == 1:
        (config["axis"],) = config["axis"]


def _renaming(old: str, new: str) -> Callable[[Config], None]:
    def rename(config: Config) -> None:
        if old in config:
            config[new] = config.pop(old)

    return rename


def _gru(config: Config) -> None:
    config.setdefault("reset_after", False)  # what there was before there was a choice


def _attention_shapes(config: Config) -> None:
    for key in ("query_shape", "key_shape", "value_shape"):  # known once it is called
        config.pop(key, None)


def _synchronized(config: Config) -> None:
    _batch_normalization(config)
    config["synchronized"] = True


ADJUSTED: dict[str, Callable[[Config], None]] = {
    "LocallyConnected1D": _local,
    "LocallyConnected2D": _local,
    "BatchNormalization": _batch_normalization,
    "SyncBatchNormalization": _synchronized,
    "LeakyReLU": _renaming("alpha", "negative_slope"),
    "ThresholdedReLU": _renaming("theta", "threshold"),
    "MultiHeadAttention": _attention_shapes,
    "GRU": _gru,
    "GRUCell": _gru,
}
"""By Keras 2's class name; each changes a configuration in place."""
