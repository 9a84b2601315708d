"""Penalties on differences between neighbours, as regularisers of Keras."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras

import lcmulti
from lcmulti.errors import ArgumentError, ArgumentTypeError, ShapeError, described
from lcmulti.geometry.arguments import choice, integer_tuple
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.operations.sheet import circular_of, neighbours_of
from lcmulti.operations.smoothness import DISTANCES
from lcmulti.types import Array
from lcmulti_keras.variables import tensor_of

__all__ = ["SheetSmoothness", "Smoothness"]


@keras.saving.register_keras_serializable(package="lcmulti_keras")
class Smoothness(keras.regularizers.Regularizer):
    """Penalty on kernels that differ between neighbouring positions: `lcmulti.smoothness`.

    It is a ``kernel_regularizer`` of any locally connected layer, also a transposed or a low-rank
    one.

    Parameters
    ----------
    factor : float, default 0.01
        Factor of the mean distance.
    distance : {"cosine", "squared"}, default "cosine"
        As in `lcmulti.smoothness`.

    Raises
    ------
    ArgumentError
        If an argument is not allowed; at call time (`ShapeError`) for an array that is not a
        kernel.
    """

    def __init__(self, factor: float = 0.01, distance: str = "cosine") -> None:
        self.factor, self.distance = _factor(factor), choice("distance", distance, DISTANCES)

    def __call__(self, x: Array) -> Any:
        """*factor* times the mean distance between neighbours, a scalar."""
        backend = keras.config.backend()
        return self.factor * lcmulti.smoothness(
            _wide(x), _spec(x), distance=self.distance, backend=backend
        )

    def get_config(self) -> dict[str, Any]:
        """The arguments of `__init__`."""
        return {"factor": self.factor, "distance": self.distance}


@keras.saving.register_keras_serializable(package="lcmulti_keras")
class SheetSmoothness(keras.regularizers.Regularizer):
    """The topographic penalty of All-TNN: `lcmulti.sheet_smoothness`.

    It is a ``kernel_regularizer`` of a locally connected layer of two axes, which may be low-rank.
    The layer also passes its bias, because a filter is its weights and its bias. (The bias of a
    transposed layer does not belong to filters, and is left out.)

    Parameters
    ----------
    factor : float
        Factor of the penalty, which is between 0 and 1.
    sheet : (int, int)
        Rows and columns to lay the filters of one position on.
    neighbours : {4, 8}
        How many neighbours a filter has on the sheet.
    circular : bool, default False
        Whether the first row is a neighbour of the last, and the first column of the last.

    Raises
    ------
    ArgumentError
        If an argument is not allowed; when the penalty is computed, if ``rows * columns`` of
        *sheet* is not the number of filters.

    Examples
    --------
    >>> layer = LocallyConnected2D(64, 3, kernel_regularizer=SheetSmoothness(1.0, (8, 8)))
    """

    def __init__(
        self, factor: float, sheet: Sequence[int], neighbours: int = 4, circular: bool = False
    ) -> None:
        self.factor = _factor(factor)
        self.sheet: tuple[int, ...] = integer_tuple("sheet", sheet, 1)
        if len(self.sheet) != 2:
            raise ArgumentError("sheet", "two numbers, rows and columns", sheet)
        self.neighbours, self.circular = neighbours_of(neighbours), circular_of(circular)

    def __call__(
        self, x: Array, bias: Array | None = None, spec: LocalConvSpec | None = None
    ) -> Any:
        """*factor* times the penalty, a scalar. A layer of another kind passes only its kernel."""
        return self.factor * lcmulti.sheet_smoothness(
            _wide(x),
            None if bias is None else _wide(bias),
            _spec(x) if spec is None else spec,
            sheet=self.sheet,
            neighbours=self.neighbours,
            circular=self.circular,
            backend=keras.config.backend(),
        )

    def get_config(self) -> dict[str, Any]:
        """The arguments of `__init__`."""
        return {
            "factor": self.factor,
            "sheet": self.sheet,
            "neighbours": self.neighbours,
            "circular": self.circular,
        }


def _factor(value: Any) -> float:
    expected = "a finite number of at least 0"
    try:
        if isinstance(value, (bool, str)):
            raise TypeError
        number = float(value)
    except TypeError:
        raise ArgumentTypeError("factor", expected, value) from None
    if not math.isfinite(number) or number < 0:
        raise ArgumentError("factor", expected, value)
    return number


def _spec(x: Array) -> LocalConvSpec:
    """A geometry that has kernels of this shape."""
    shape = tuple(x.shape)
    axes = len(shape) // 2 - 1
    if len(shape) % 2 or axes < 1:
        layout = "(*output_size, *kernel_size, in_channels // groups, filters)"
        raise ShapeError("x", f"a kernel of shape {layout}", described(str(shape)))
    positions, window = shape[:axes], shape[axes:-2]
    size = tuple(n + k - 1 for n, k in zip(positions, window, strict=True))
    return LocalConvSpec((*size, shape[-2]), shape[-1], window, data_format="channels_last")


def _wide(x: Array) -> Array:
    """A tensor, in float32 if it has a half type, which cannot distinguish neighbours."""
    half = keras.backend.standardize_dtype(x.dtype) in ("float16", "bfloat16")
    return tensor_of(x, "float32" if half else None)
