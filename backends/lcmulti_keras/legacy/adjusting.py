"""Change the configuration of a layer of Keras 2 to one that Keras 3 accepts."""

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
    """The class that replaces a class of Keras 2."""
    return OURS.get(name) or getattr(keras.layers, RENAMED.get(name, name))


def adjust(name: str, cls: type, config: Config) -> str | None:
    """Change a configuration, in place, so that it has the same meaning for *cls* as in the file.

    Parameters
    ----------
    name : str
        The class in the file.
    cls : type
        The class of the new layer, which may be the caller's own. It is treated as the layer of
        Keras, or of lcmulti, that it derives from.
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
    # A class whose own arguments have the names of Keras 2 gets them under these names.
    renamed = [key for key in before.keys() - config.keys() if key in parameters(cls)]
    if renamed:
        for key in config.keys() - before.keys():
            del config[key]
        config |= {key: before[key] for key in renamed}
    return lost


def _is_known(cls: type) -> bool:
    return cls is OURS.get(cls.__name__) or cls is getattr(keras.layers, cls.__name__, None)


def droppable(key: str, value: Any) -> bool:
    """Whether an option that Keras 3 no longer has, has no effect with this value."""
    if value is None or value is False:
        return True
    neutral = DROPPED.get(key, ())
    return neutral is None or value in neutral


@cache
def parameters(cls: type) -> frozenset[str]:
    """Names of the arguments that a class takes, including those that it passes to its bases."""
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
    """Keras 2 has another rule for ``same``, and its constraints are for a kernel of other axes."""
    implementation = config.setdefault("implementation", 1)
    padding = config.get("padding", "valid")
    config["padding"] = "keras_same" if padding == "same" else padding
    constraint = config.get("kernel_constraint")
    n = len(config.get("kernel_size") or ())
    ours = _axes(implementation, n, config.get("data_format") == "channels_first")
    if not (isinstance(constraint, dict) and "axis" in (constraint.get("config") or {})):
        return None
    # The axes are no longer those of an implementation of Keras 2.
    config["implementation"] = "auto"
    try:
        config["kernel_constraint"] = moved_axes(constraint, lambda axis: ours[axis % len(ours)])
    except (TypeError, ZeroDivisionError):  # the kernel has no such axis
        config["kernel_constraint"] = None
        return f"the kernel constraint of {config.get('name')} along its output"
    return None


def _axes(implementation: Any, n: int, channels_first: bool) -> tuple[Any, ...]:
    """For each axis of Keras 2's kernel, the axes of lcmulti's kernel; None if there are none.

    Implementation 2 stores a matrix of every input and every output. Along an input axis it has the
    taps of a window (and zeros without a connection). Along an output axis nothing corresponds.
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
    config.setdefault("reset_after", False)  # the behaviour before there was a choice


def _cudnn(config: Config) -> None:
    """The options of cuDNN, which had no choices."""
    config |= {"activation": "tanh", "recurrent_activation": "sigmoid"}


def _cudnn_gru(config: Config) -> None:
    _cudnn(config)
    config["reset_after"] = True


def _attention_shapes(config: Config) -> None:
    for key in ("query_shape", "key_shape", "value_shape"):  # known when it is called
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
"""By class name of Keras 2. Each function changes a configuration, and returns what is lost."""
