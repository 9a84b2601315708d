"""What changes in a layer's configuration before Keras 3 takes it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import keras

from lcmulti_keras.axes import moved_axes
from lcmulti_keras.layers import LocallyConnected1D, LocallyConnected2D
from lcmulti_keras.legacy.allowed import DROPPED, RENAMED
from lcmulti_keras.legacy.contract import Config

__all__ = ["adjust", "class_of", "droppable", "parameters"]

OURS = {"LocallyConnected1D": LocallyConnected1D, "LocallyConnected2D": LocallyConnected2D}


def class_of(name: str) -> type[keras.layers.Layer]:
    """The class that stands for one of Keras 2's."""
    return OURS.get(name) or getattr(keras.layers, RENAMED.get(name, name))


def adjust(name: str, cls: type[keras.layers.Layer], config: Config) -> str | None:
    """Change a configuration, in place, to mean to *cls* what the file meant by it.

    Parameters
    ----------
    name : str
        The class in the file.
    cls : type
        The class to be made, which may be the caller's own. What counts is which of Keras'
        layers, or of ours, it is a kind of.
    config : dict

    Returns
    -------
    What is lost, if anything.
    """
    kinds = (name, *(each.__name__ for each in cls.__mro__ if _is_known(each)))
    kind = next(
        (each for each in kinds if each in ADJUSTED and issubclass(cls, class_of(each))), ""
    )
    if not kind:
        return None
    before = dict(config)
    lost = ADJUSTED[kind](config)
    # A class whose own arguments are named as in Keras 2 is given them so.
    renamed = [key for key in before.keys() - config.keys() if key in parameters(cls)]
    if renamed:
        for key in config.keys() - before.keys():
            del config[key]
        config |= {key: before[key] for key in renamed}
    return lost


def _is_known(cls: type) -> bool:
    return cls is OURS.get(cls.__name__) or cls is getattr(keras.layers, cls.__name__, None)


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


def _cudnn(config: Config) -> None:
    """What cuDNN computes, which had no choices."""
    config |= {"activation": "tanh", "recurrent_activation": "sigmoid"}


def _cudnn_gru(config: Config) -> None:
    _cudnn(config)
    config["reset_after"] = True


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
    "CuDNNLSTM": _cudnn,
    "CuDNNGRU": _cudnn_gru,
}
"""By Keras 2's class name; each changes a configuration in place and may say what is lost."""
