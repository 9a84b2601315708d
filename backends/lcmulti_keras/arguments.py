"""Normalise the arguments in which Keras' layers differ from lcmulti, and check input shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import keras

from lcmulti import plugins
from lcmulti.errors import ArgumentError, ShapeError
from lcmulti.geometry.arguments import choice, is_sequence
from lcmulti.geometry.formats import in_other_format
from lcmulti.geometry.of_call import samples_error
from lcmulti.geometry.padding import PADDINGS

__all__ = [
    "KERAS2_IMPLEMENTATIONS",
    "LayerArguments",
    "implementation_of",
    "padding_of",
    "require_fitting",
    "sample_shape",
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


def implementation_of(value: Any) -> str | int:
    """Check an implementation: a number of Keras 2, ``"auto"``, or a name in any backend."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value not in KERAS2_IMPLEMENTATIONS:
            raise ArgumentError("implementation", "1, 2, 3, 'auto' or a name", value)
        return int(value)
    names = sorted({name for _, name in plugins.registry().implementations})
    return choice("implementation", value, ("auto", *names))


def sample_shape(input_shape: Any, ndim: int, layer: str) -> tuple[int, ...]:
    """Shape of one sample, without the batch; raise if a size that weights need is unknown."""
    if not is_sequence(input_shape) or len(input_shape) != ndim + 2:
        raise ShapeError("input_shape", f"{ndim + 2} axes, the first the batch", input_shape)
    shape = tuple(input_shape)
    if None in shape[1:]:
        raise ShapeError(
            "input_shape",
            f"the spatial dimensions of the inputs to a {layer} layer, which should be "
            "fully-defined, as its weights differ at every position",
            shape,
        )
    return shape[1:]


def require_fitting(
    shape: tuple[int | None, ...], built_for: tuple[int, ...], data_format: str
) -> None:
    """Raise if samples have another shape than the weights of a layer were made for."""
    if all(n in (None, m) for n, m in zip(shape, built_for, strict=True)):
        return
    advice = f"for these build a new layer, on keras.Input({shape})"
    if shape == in_other_format(built_for, data_format):
        first = data_format == "channels_first"
        other = "channels_last" if first else "channels_first"
        advice = f"these are {other}: a layer with data_format={other!r} takes them"
    raise samples_error("inputs", shape, built_for, advice)
