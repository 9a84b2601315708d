"""A table of wrong calls: changes to a right call, and the error that every backend must raise."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lcmulti import plugins
from lcmulti.errors import (
    ArgumentError,
    ArgumentTypeError,
    DtypeError,
    LcmultiError,
    ShapeError,
    TooLargeError,
)
from lcmulti.types import Array

__all__ = ["RIGHT", "WRONG", "WrongCall", "converted", "named"]


class WrongCall(NamedTuple):
    """One row of the table.

    Parameters
    ----------
    changes : dict
        The changes to the right call.
    error : type
        The exact class of the error.
    argument : str
        The argument it names.
    shown : str
        A part of the wrong value that the message must show.
    """

    changes: dict[str, Any]
    error: type[LcmultiError]
    argument: str
    shown: str


def ones(*shape: int, dtype: str = "float32") -> np.ndarray:
    """An array for calls of which only shape and dtype matter."""
    return np.ones(shape, dtype)


RIGHT: dict[str, Any] = {
    "x": ones(2, 9, 8, 4), "kernel": ones(7, 7, 3, 2, 4, 6), "bias": ones(7, 7, 6),
}  # fmt: skip
"""A right call; each row of the table changes it to a wrong one."""

HUGE: dict[str, Any] = {"kernel": ones(1, 1, 3, 2, 4, 6), "bias": ones(1, 1, 6)}
"""Weights that fit any output size, for calls that are wrong only by their size."""

WRONG: list[WrongCall] = [WrongCall(*row) for row in (
    ({"x": ones(9, 8, 4)}, ShapeError, "x", "(9, 8, 4)"),
    ({"x": ones(2, 1, 9, 8, 4)}, ShapeError, "x", "(2, 1, 9, 8, 4)"),
    ({"x": ones()}, ShapeError, "x", "()"),
    ({"x": ones(2, 0, 8, 4)}, ShapeError, "x", "(2, 0, 8, 4)"),
    ({"x": ones(2, 9, 8, 0)}, ShapeError, "x", "(2, 9, 8, 0)"),
    ({"x": ones(2, 9, 8, 3)}, ShapeError, "kernel", "4 in shape (7, 7, 3, 2, 4, 6)"),
    ({"x": ones(2, 2, 8, 4)}, ShapeError, "kernel_size", "(3, 2)"),
    ({"x": ones(2, 12, 8, 4)}, ShapeError, "kernel", "(7, 7)"),
    ({"x": ones(2, 4, 9, 8)}, ShapeError, "x", "data_format='channels_first'"),
    ({"x": [[1.0]]}, ArgumentTypeError, "x", "list"),
    ({"x": None}, ArgumentTypeError, "x", "NoneType"),
    ({"x": "image.png"}, ArgumentTypeError, "x", "str"),
    ({"x": 3.0}, ArgumentTypeError, "x", "float"),
    ({"x": ones(2, 9, 8, 4, dtype="int32")}, DtypeError, "x", "int32"),
    ({"x": ones(2, 9, 8, 4, dtype="uint8")}, DtypeError, "x", "uint8"),
    ({"x": ones(2, 9, 8, 4, dtype="bool")}, DtypeError, "x", "bool"),
    ({"x": ones(2, 9, 8, 4, dtype="float16")}, DtypeError, "kernel", "float32"),
    ({"kernel": ones(7, 7, 3, 2, 4, 6, dtype="int32")}, DtypeError, "kernel", "int32"),
    ({"kernel": ones(7, 7, 3, 2, 4, 6, dtype="complex64")}, DtypeError, "kernel", "complex64"),
    ({"kernel": ones(7, 7, 3, 2, 4)}, ShapeError, "kernel", "(7, 7, 3, 2, 4)"),
    ({"kernel": ones(4, 6)}, ShapeError, "kernel", "(4, 6)"),
    ({"kernel": ones(7, 3, 4, 6)}, ShapeError, "kernel", "(7, 3, 4, 6)"),
    ({"kernel": ones(7, 7, 3, 2, 5, 6)}, ShapeError, "kernel", "5 in shape (7, 7, 3, 2, 5, 6)"),
    ({"kernel": ones(7, 6, 3, 2, 4, 6)}, ShapeError, "kernel", "(7, 6)"),
    ({"kernel": ones(2, 7, 3, 2, 4, 6)}, ShapeError, "kernel", "(2, 7)"),
    ({"kernel": ones(7, 7, 0, 2, 4, 6)}, ShapeError, "kernel", "(7, 7, 0, 2, 4, 6)"),
    ({"kernel": ones(7, 7, 3, 2, 4, 0)}, ShapeError, "kernel", "(7, 7, 3, 2, 4, 0)"),
    ({"kernel": ones(1, 1, 10, 2, 4, 6)}, ShapeError, "kernel_size", "(10, 2)"),
    ({"kernel": {"w": 1}}, ArgumentTypeError, "kernel", "dict"),
    ({"bias": ones(6)}, ShapeError, "bias", "(6,)"),
    ({"bias": ones(7, 7, 5)}, ShapeError, "bias", "(7, 7, 5)"),
    ({"bias": ones(7, 3, 6)}, ShapeError, "bias", "(7, 3)"),
    ({"bias": ones(1, 7, 7, 6)}, ShapeError, "bias", "(1, 7, 7, 6)"),
    ({"bias": ones(7, 7, 6, dtype="float16")}, DtypeError, "bias", "float16"),
    ({"bias": 0.5}, ArgumentTypeError, "bias", "float"),
    ({"strides": 0}, ArgumentError, "strides", "0"),
    ({"strides": -2}, ArgumentError, "strides", "-2"),
    ({"strides": (1, 1, 1)}, ArgumentError, "strides", "(1, 1, 1)"),
    ({"strides": ()}, ArgumentError, "strides", "()"),
    ({"strides": 1.0}, ArgumentTypeError, "strides", "1.0"),
    ({"strides": True}, ArgumentTypeError, "strides", "True"),
    ({"strides": "2"}, ArgumentTypeError, "strides", "'2'"),
    ({"strides": (1, None)}, ArgumentTypeError, "strides", "None"),
    ({"strides": 2}, ShapeError, "kernel", "(7, 7)"),
    ({"dilation": 0}, ArgumentError, "dilation", "0"),
    ({"dilation": (1, -1)}, ArgumentError, "dilation", "-1"),
    ({"dilation": {2}}, ArgumentTypeError, "dilation", "{2}"),
    ({"dilation": 5}, ShapeError, "kernel_size", "which spans (11, 6)"),
    ({"padding": "vallid"}, ArgumentError, "padding", "'vallid'"),
    ({"padding": "causal"}, ArgumentError, "padding", "'causal'"),
    ({"padding": -1}, ArgumentError, "padding", "-1"),
    ({"padding": ((1, 1),)}, ArgumentError, "padding", "((1, 1),)"),
    ({"padding": ((1, 1, 1), (1, 1))}, ArgumentError, "padding", "((1, 1, 1), (1, 1))"),
    ({"padding": 0.5}, ArgumentTypeError, "padding", "0.5"),
    ({"padding": None}, ArgumentTypeError, "padding", "None"),
    ({"padding": 1}, ShapeError, "kernel", "(7, 7)"),
    (HUGE | {"padding": 10**7}, TooLargeError, "padding", ", 20000009, 20000008, 4)"),
    (HUGE | {"padding": 2**62}, TooLargeError, "padding", ", 9223372036854775817, "),
    (HUGE | {"padding": 10**7, "padding_mode": "replicate"}, TooLargeError, "padding", "float32"),
    ({"padding_mode": "mirror"}, ArgumentError, "padding_mode", "'mirror'"),
    ({"padding_mode": None}, ArgumentTypeError, "padding_mode", "None"),
    ({"padding": 9, "padding_mode": "reflect"}, ShapeError, "padding", "(9, 9)"),
    ({"padding": 10, "padding_mode": "circular"}, ShapeError, "padding", "(10, 10)"),
    ({"groups": 0}, ArgumentError, "groups", "0"),
    ({"groups": 3}, ArgumentError, "groups", "3"),
    ({"groups": 4}, ArgumentError, "groups", "4"),
    ({"groups": 2}, ShapeError, "kernel", "4 in shape"),
    ({"groups": 2.0}, ArgumentTypeError, "groups", "2.0"),
    ({"data_format": "NHWC"}, ArgumentError, "data_format", "'NHWC'"),
    ({"data_format": 1}, ArgumentTypeError, "data_format", "1"),
    ({"data_format": "channels_first"}, ShapeError, "x", "data_format='channels_last'"),
    ({"backend": "theano"}, ArgumentError, "backend", "'theano'"),
    ({"backend": np}, ArgumentTypeError, "backend", "module"),
    ({"implementation": "fastest"}, ArgumentError, "implementation", "'fastest'"),
    ({"implementation": None}, ArgumentTypeError, "implementation", "None"),
    ({"implementation": ("auto",)}, ArgumentTypeError, "implementation", "('auto',)"),
)]  # fmt: skip


def named(row: WrongCall) -> str:
    """A readable id."""
    return ",".join(
        f"{name}={value.dtype}{value.shape}" if isinstance(value, np.ndarray)
        else f"{name}={value!r:.30}"
        for name, value in row.changes.items()
    )  # fmt: skip


def converted(arguments: dict[str, Any], backend: str) -> dict[str, Array]:
    """The arguments, with arrays of *backend*."""
    owner = plugins.load_backend(backend)
    return {
        name: owner.from_numpy(value) if isinstance(value, np.ndarray) else value
        for name, value in arguments.items()
    }
