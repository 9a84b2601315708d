"""Windows that tile the input: no patches, because XLA fuses the sum over each window."""

from __future__ import annotations

from itertools import chain, product
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from lcmulti.dtypes import DTYPES
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Problem, Resources
from lcmulti_jax.array_operations import widen

__all__ = ["disjoint"]

ALL = slice(None)
MOST_TERMS = 64
"""Longer sums are faster as matrix products."""


class JaxDisjoint:
    """`lcmulti.backend.Implementation`: a sample is viewed as windows, and XLA fuses the sum.

    A loop takes one sample at a time. Without it, XLA would fuse the sums into the operations that
    use them, or hold all terms, and would sum over the batch with the stride of a sample.
    """

    def decline(self, problem: Problem) -> str | None:
        """Serves small windows that tile the input, without padding."""
        spec = problem.spec
        if not spec.is_disjoint:
            return "windows overlap, leave gaps or reach into padding"
        if max(spec.terms, spec.filters // spec.groups) > MOST_TERMS:
            return f"sums of more than {MOST_TERMS} terms"
        return None

    def workspace(self, problem: Problem) -> int:
        """The kernel in another order, or its gradient in the accumulator dtype."""
        return prod(problem.spec.kernel_shape) * DTYPES[DTYPES[problem.dtype].accumulator].itemsize

    def forward(self, x: Array, kernel: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        """See `lcmulti.backend.Implementation.forward`."""
        kernels = widen(_by_group(kernel, spec))
        taps = [*product(*map(range, spec.kernel_size))]

        def one(x: Array) -> Any:
            windows = _tiles(widen(x), spec)
            y = sum(
                windows[(..., *tap, ALL, c, None)] * kernels[(..., *tap, c, ALL, ALL)]
                for tap in taps
                for c in range(spec.in_channels // spec.groups)
            )
            return y.astype(x.dtype).reshape(spec.output_shape)

        return lax.map(one, x)

    def input_grad(
        self, dy: Array, kernel: Array, spec: LocalConvSpec, resources: Resources
    ) -> Array:
        """See `lcmulti.backend.Implementation.input_grad`."""
        kernels = jnp.swapaxes(widen(_by_group(kernel, spec)), -3, -2)  # (*positions, *k, G, C, F)
        like = jax.ShapeDtypeStruct(spec.input_shape, dy.dtype)

        def one(dy: Array) -> Any:
            outputs = self._behind_taps(dy, spec)[..., None, :]
            windows = sum(
                outputs[..., f] * kernels[..., f] for f in range(spec.filters // spec.groups)
            )
            (dx,) = jax.linear_transpose(lambda x: _tiles(x, spec), like)(windows.astype(dy.dtype))
            return dx

        return lax.map(one, dy)

    def kernel_grad(self, x: Array, dy: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        """See `lcmulti.backend.Implementation.kernel_grad`."""

        def add(total: Array, sample: tuple[Any, Any]) -> tuple[Array, None]:
            x, dy = sample
            windows = jnp.swapaxes(_tiles(widen(x), spec), -1, -2)[..., None]
            outputs = self._behind_taps(dy, spec)[..., None, :, :]
            shared = (windows * outputs).sum(spec.shared_axes)
            return total + shared.reshape(spec.kernel_shape), None

        zeros = jnp.zeros(spec.kernel_shape, DTYPES[x.dtype.name].accumulator)
        total, _ = lax.scan(add, zeros, (x, dy))
        return total.astype(x.dtype)

    def _behind_taps(self, dy: Array, spec: LocalConvSpec) -> Array:
        """``(*O, G*F) -> (*O, 1 for each side of a window, G, F)``."""
        sides = tuple(range(spec.ndim, 2 * spec.ndim))
        return jnp.expand_dims(widen(_by_group(dy, spec)), sides)


def _tiles(x: Array, spec: LocalConvSpec) -> Array:
    """``(*I, G*C) -> (*O, *k, G, C)``; inputs behind the last window are left out."""
    axes = spec.ndim
    for axis, (n, k) in enumerate(zip(spec.output_size, spec.kernel_size, strict=True)):
        x = lax.slice_in_dim(x, 0, n * k, axis=axis)
    pairs = chain.from_iterable(zip(spec.output_size, spec.kernel_size, strict=True))
    x = x.reshape(*pairs, spec.groups, spec.in_channels // spec.groups)
    return x.transpose(*range(0, 2 * axes, 2), *range(1, 2 * axes, 2), 2 * axes, 2 * axes + 1)


def _by_group(array: Array, spec: LocalConvSpec) -> Array:
    """``(..., G*F) -> (..., G, F)``."""
    return array.reshape(*array.shape[:-1], spec.groups, spec.filters // spec.groups)


disjoint = JaxDisjoint()
