"""Products of pairs of filters, compiled by XLA as a whole, so that no product is stored.

TensorFlow's own gradient of a compiled function would store slices of the kernel. So the gradient
is a second compiled function, which takes the kernel.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import tensorflow as tf

from lcmulti.operations.pairs import Pair, Range, taken

__all__ = ["pair_products"]


def pair_products(kernel: tf.Tensor, pairs: tuple[Pair, ...]) -> list[tf.Tensor]:
    """See `lcmulti.operations.pairs.products`."""
    forward, backward = _compiled(pairs, tuple(kernel.shape))

    @tf.custom_gradient
    def products(kernel: tf.Tensor) -> tf.Tensor:
        def gradient(*above: Any) -> tf.Tensor:
            return backward(kernel, *above)

        return forward(kernel), gradient

    return list(products(kernel))


@lru_cache(maxsize=256)
def _compiled(pairs: tuple[Pair, ...], shape: tuple[int, ...]) -> tuple[Any, Any]:
    window = tuple(range(2, len(shape) - 1))

    def forward(kernel: tf.Tensor) -> list[tf.Tensor]:
        return [tf.reduce_sum(taken(kernel, a) * taken(kernel, b), window) for a, b in pairs]

    def backward(kernel: tf.Tensor, *above: Any) -> tf.Tensor:
        total = 0
        for (first, second), each in zip(pairs, above, strict=True):
            grad = each[(slice(None), slice(None), *(None,) * len(window))]
            for to, of in ((first, second), (second, first)):
                total += _spread(grad * taken(kernel, of), to, shape)
        return total

    return tuple(tf.function(f, jit_compile=True, autograph=False) for f in (forward, backward))


def _spread(part: tf.Tensor, ranges: tuple[Range, ...], shape: tuple[int, ...]) -> tf.Tensor:
    """Zeros of *shape*, with *part* at the given ranges."""
    begin = [each[0] for each in ranges[:-1]] + [0] * (len(shape) - 3) + [ranges[-1][0]]
    end = [each[1] for each in ranges[:-1]] + [*shape[2:-1], ranges[-1][1]]
    strides = [1] * (len(shape) - 1) + [ranges[-1][2]]
    return tf.raw_ops.StridedSliceGrad(shape=shape, begin=begin, end=end, strides=strides, dy=part)
