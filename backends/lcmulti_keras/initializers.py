"""Initialise each position's weights like those of a convolution, with any Keras initialiser.

Keras assumes that the last two axes of an array are channels and filters and all others the window.
So an initialiser that depends on the shape would count output positions as taps, and initial
weights would be about ``sqrt(positions)`` too small, as in Keras 2. Each initialiser is called
once, for any number of positions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from math import prod
from typing import Any

import keras
from keras import ops

from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.weights import layouts

__all__ = ["fans", "kernel_initializer"]

Shape = tuple[int, ...]
_HALF = ("float16", "bfloat16")


def kernel_initializer(
    initializer: Any,
    whole: Shape,
    spec: LocalConvSpec,
    keras2_implementation: int | None = None,
) -> Callable[..., Any]:
    """Adapt a Keras initialiser to an array of kernels: one for each position, or a basis.

    Parameters
    ----------
    initializer : keras.initializers.Initializer or callable
        One of Keras' own initialisers treats each position like a convolution's kernel,
        ``(*kernel_size, in_channels // groups, filters)``. Any other callable is called with
        the shape of the whole array.
    whole : tuple of int
        Shape of the array; its last axes are those of one kernel.
    spec : LocalConvSpec
    keras2_implementation : {1, 2, 3}, optional
        Use the distribution of this implementation of Keras 2 instead.

    Returns
    -------
    callable
        ``(shape, dtype=None) -> tensor`` for ``shape == whole``.
    """
    one = spec.kernel_shape[spec.ndim :]
    if isinstance(initializer, keras.initializers.VarianceScaling):
        if keras2_implementation is None:
            wanted = _own_fans(initializer, one)
        else:
            wanted = fans(layouts.kernel_shape(f"keras2-{keras2_implementation}", spec.sharing(())))
        return _rescaled(initializer, wanted, _own_fans(initializer, whole))
    if keras2_implementation is not None:
        return initializer
    if isinstance(initializer, keras.initializers.Orthogonal):
        return lambda shape, dtype=None: _orthogonal(initializer, shape, one, dtype)
    if isinstance(initializer, (keras.initializers.Identity, keras.initializers.STFT)):
        return lambda shape, dtype=None: ops.broadcast_to(initializer(one, dtype=dtype), shape)
    return initializer


def fans(shape: Shape) -> tuple[int, int]:
    """Fan-in and fan-out that Keras computes from a shape ``(*window, channels, filters)``."""
    if len(shape) < 3:
        return shape[0], shape[-1]
    window = prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


def _own_fans(initializer: Any, shape: Shape) -> tuple[int, int]:
    if initializer.input_axes is None or initializer.output_axes is None:
        return fans(shape)
    return (
        prod(shape[axis] for axis in initializer.input_axes),
        prod(shape[axis] for axis in initializer.output_axes),
    )


def _rescaled(initializer: Any, wanted: tuple[int, int], found: tuple[int, int]) -> Any:
    """A copy whose scale compensates for the fans that it computes from the whole shape."""

    def divisor(fan_in: int, fan_out: int) -> float:
        return {"fan_in": fan_in, "fan_out": fan_out}.get(initializer.mode, (fan_in + fan_out) / 2)

    rescaled = copy.copy(initializer)
    rescaled.scale = initializer.scale * divisor(*found) / divisor(*wanted)
    return rescaled


def _orthogonal(initializer: Any, shape: Shape, one: Shape, dtype: Any) -> Any:
    """One orthogonal matrix ``(prod(one[:-1]), one[-1])`` for each position (Saxe et al. 2014)."""
    rows, columns = prod(one[:-1]), one[-1]
    dtype = keras.backend.standardize_dtype(dtype)
    tall = (prod(shape[: -len(one)]), max(rows, columns), min(rows, columns))
    drawn = keras.random.normal(
        tall, dtype="float32" if dtype in _HALF else dtype, seed=initializer.seed
    )
    q, r = ops.qr(drawn)
    # Without this, Q is not uniformly distributed.
    q = q * ops.sign(ops.diagonal(r, axis1=-2, axis2=-1))[:, None, :]
    if rows < columns:
        q = ops.transpose(q, (0, 2, 1))
    return ops.cast(initializer.gain * ops.reshape(q, shape), dtype)
