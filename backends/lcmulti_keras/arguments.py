"""Normalise the arguments in which Keras' layers differ from lcmulti."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import keras

from lcmulti import plugins
from lcmulti.errors import ArgumentError
from lcmulti.geometry.arguments import choice, integer_tuple, is_sequence
from lcmulti.geometry.padding import PADDINGS

__all__ = [
    "KERAS2_IMPLEMENTATIONS",
    "LayerArguments",
    "implementation_of",
    "padding_of",
    "shared_axes_of",
    "take_input_shape",
]

KERAS2_IMPLEMENTATIONS = (1, 2, 3)


class LayerArguments(TypedDict, total=False):
    """What every layer of Keras takes by keyword, for type checkers."""

    name: str | None
    dtype: Any
    trainable: bool
    autocast: bool
    input_shape: Sequence[int | None]
    batch_input_shape: Sequence[int | None]
    input_dim: int
    input_length: int


def take_input_shape(kwargs: dict[str, Any], rank: int, data_format: str | None) -> None:
    """Convert older arguments of Keras 2 for the input shape to ``input_shape``."""
    batched = kwargs.pop("batch_input_shape", None)
    if batched is not None:
        kwargs["input_shape"] = tuple(batched)[1:]
    if rank == 1 and "input_length" in kwargs:
        shape = (kwargs.pop("input_length"), kwargs.pop("input_dim", None))
        first = (data_format or keras.config.image_data_format()) == "channels_first"
        kwargs["input_shape"] = shape[::-1] if first else shape


def padding_of(padding: Any, rank: int) -> Any:
    """Padding as `lcmulti.LocalConvSpec` takes it: names in lower case, lists as tuples."""
    if isinstance(padding, str):
        known = PADDINGS if rank == 1 else tuple(name for name in PADDINGS if name != "causal")
        return choice("padding", padding, known)
    if is_sequence(padding):  # Keras and JSON turn tuples into lists
        return tuple(tuple(each) if is_sequence(each) else each for each in padding)
    return padding


def shared_axes_of(value: Any, rank: int) -> tuple[int, ...]:
    """Check distinct spatial axes; return a tuple."""
    if is_sequence(value) and not value:
        return ()
    axes = integer_tuple("shared_axes", value, 0)
    if max(axes) >= rank or len(set(axes)) < len(axes):
        what = f"distinct spatial axes between 0 and {rank - 1}"
        raise ArgumentError("shared_axes", what, value)
    return axes


def implementation_of(value: Any) -> str | int:
    """Check an implementation: a number of Keras 2, ``"auto"``, or a name in any backend."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value not in KERAS2_IMPLEMENTATIONS:
            raise ArgumentError("implementation", "1, 2, 3, 'auto' or a name", value)
        return int(value)
    names = sorted({name for _, name in plugins.registry().implementations})
    return choice("implementation", value, ("auto", *names))
