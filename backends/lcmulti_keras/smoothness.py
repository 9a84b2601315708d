"""The neighbour-smoothness penalty as a regulariser of Keras."""

from __future__ import annotations

import math
from typing import Any

import keras

import lcmulti
from lcmulti.errors import ArgumentError, ShapeError, described
from lcmulti.geometry.arguments import choice
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.operations.smoothness import DISTANCES
from lcmulti_keras.variables import tensor_of

__all__ = ["Smoothness"]


@keras.saving.register_keras_serializable(package="lcmulti_keras")
class Smoothness(keras.regularizers.Regularizer):
    """Penalty on kernels that differ between neighbouring positions: `lcmulti.smoothness`.

    As ``kernel_regularizer`` of a locally connected layer, transposed or not, with or without a
    rank.

    Parameters
    ----------
    factor : float, default 0.01
        What the mean distance is multiplied by.
    distance : {"cosine", "squared"}

    Raises
    ------
    ArgumentError
        If an argument cannot be; at call time (`ShapeError`) for what is no such kernel.
    """

    def __init__(self, factor: float = 0.01, distance: str = "cosine") -> None:
        if isinstance(factor, bool) or not math.isfinite(factor) or factor < 0:
            raise ArgumentError("factor", "a finite number of at least 0", factor)
        self.factor, self.distance = float(factor), choice("distance", distance, DISTANCES)

    def __call__(self, x: Any) -> Any:
        """*factor* times the mean distance between neighbours, a scalar."""
        shape = tuple(x.shape)
        axes = len(shape) // 2 - 1
        if len(shape) % 2 or axes < 1:
            layout = "(*output_size, *kernel_size, in_channels // groups, filters)"
            raise ShapeError("x", f"a kernel of shape {layout}", described(str(shape)))
        positions, window = shape[:axes], shape[axes:-2]
        size = tuple(n + k - 1 for n, k in zip(positions, window, strict=True))
        spec = LocalConvSpec((*size, shape[-2]), shape[-1], window, data_format="channels_last")
        half = keras.backend.standardize_dtype(x.dtype) in ("float16", "bfloat16")
        kernel = tensor_of(x, "float32" if half else None)
        backend = keras.config.backend()
        return self.factor * lcmulti.smoothness(
            kernel, spec, distance=self.distance, backend=backend
        )

    def get_config(self) -> dict[str, Any]:
        """The arguments of `__init__`."""
        return {"factor": self.factor, "distance": self.distance}
