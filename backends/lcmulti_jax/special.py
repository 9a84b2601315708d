"""Geometries that need no patches."""

from __future__ import annotations

from itertools import chain, product
from math import prod
from operator import gt
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lcmulti.backend import Problem, Resources
from lcmulti.dtypes import DTYPES
from lcmulti.shapes import window_extent
from lcmulti.spec import LocalConvSpec
from lcmulti_jax.patches import widen

__all__ = ["conv", "disjoint"]


class Conv:
    """One kernel for all output positions: XLA's convolution and its transposes."""

    def decline(self, problem: Problem) -> str | None:
        """Serves one shared kernel; on a GPU where XLA gets it right.

        In JAX 0.11.2 on an H100, `lcmulti certify jax --device gpu` found wrong gradients of
        grouped kernels in 4D, and gradients in which not-a-number spread over gaps between
        windows, which are multiplied as zeros there.
        """
        if not problem.spec.is_convolution:
            return "kernels differ between positions"
        if prod(problem.spec.output_size) == 1:
            return "a single position is a matrix product"
        if problem.device != "gpu":
            return None
        if problem.spec.ndim > 3:
            return "XLA has no convolution of more than three axes on a GPU"
        extents = map(window_extent, problem.spec.kernel_size, problem.spec.dilation)
        if any(map(gt, problem.spec.strides, extents)):
            return "XLA multiplies the gaps between windows by zero on a GPU"
        return None

    def workspace(self, problem: Problem) -> int:
        """Input and output, padded, in another order and in the accumulator dtype."""
        spec = problem.spec
        batch = problem.samples
        elements = batch * (prod(spec.padded_size) * spec.in_channels + prod(spec.output_shape))
        return 2 * elements * DTYPES[DTYPES[problem.dtype].accumulator].itemsize

    def forward(self, x: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `lcmulti.backend.Implementation.forward`."""
        return self._convolve(widen(x), widen(kernel), spec).astype(x.dtype)

    def input_grad(self, dy: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `lcmulti.backend.Implementation.input_grad`."""
        wide = widen(dy)
        x = jax.ShapeDtypeStruct((dy.shape[0], *spec.input_shape), wide.dtype)
        kernel = widen(kernel)
        (dx,) = jax.linear_transpose(lambda x: self._convolve(x, kernel, spec), x)(wide)
        return dx.astype(dy.dtype)

    def kernel_grad(self, x: Any, dy: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `lcmulti.backend.Implementation.kernel_grad`."""
        wide = widen(x)
        kernel = jax.ShapeDtypeStruct(spec.kernel_shape, wide.dtype)
        (dkernel,) = jax.linear_transpose(lambda k: self._convolve(wide, k, spec), kernel)(
            widen(dy)
        )
        return dkernel.astype(x.dtype)

    def _convolve(self, x: Any, kernel: Any, spec: LocalConvSpec) -> Any:
        axes = tuple(range(1, spec.ndim + 1))
        return lax.conv_general_dilated(
            x,
            kernel.reshape(kernel.shape[spec.ndim :]),
            window_strides=spec.strides,
            padding=spec.padding,
            rhs_dilation=spec.dilation,
            dimension_numbers=lax.ConvDimensionNumbers(
                (0, spec.ndim + 1, *axes),
                (spec.ndim + 1, spec.ndim, *range(spec.ndim)),
                (0, spec.ndim + 1, *axes),
            ),
            feature_group_count=spec.groups,
            precision=lax.Precision.HIGHEST,
        )


ALL = slice(None)
MOST_TERMS = 64
"""Sums longer than this are better left to matrix products."""


class Disjoint:
    """Windows that tile the input: each sample is viewed as windows, and XLA fuses the sum.

    Samples are taken one by one in a loop. Without it XLA would fuse the sums into whatever uses
    them, or else hold their terms, and sum over the batch with a stride as long as a sample.
    """

    def decline(self, problem: Problem) -> str | None:
        """Serves small windows that tile the input."""
        spec = problem.spec
        if not spec.is_disjoint:
            return "windows overlap, leave gaps or reach into padding"
        if max(spec.terms, spec.filters // spec.groups) > MOST_TERMS:
            return f"sums of more than {MOST_TERMS} terms"
        return None

    def workspace(self, problem: Problem) -> int:
        """The kernel in another order, or a gradient in the accumulator dtype."""
        return prod(problem.spec.kernel_shape) * DTYPES[DTYPES[problem.dtype].accumulator].itemsize

    def forward(self, x: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `lcmulti.backend.Implementation.forward`."""
        kernels = widen(_by_group(kernel, spec))
        taps = [*product(*map(range, spec.kernel_size))]

        def one(x: Any) -> Any:
            windows = _tiles(widen(x), spec)
            y = sum(
                windows[(..., *tap, ALL, c, None)] * kernels[(..., *tap, c, ALL, ALL)]
                for tap in taps
                for c in range(spec.in_channels // spec.groups)
            )
            return y.astype(x.dtype).reshape(spec.output_shape)

        return lax.map(one, x)

    def input_grad(self, dy: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `lcmulti.backend.Implementation.input_grad`."""
        kernels = jnp.swapaxes(widen(_by_group(kernel, spec)), -3, -2)  # (*positions, *k, G, C, F)
        like = jax.ShapeDtypeStruct(spec.input_shape, dy.dtype)

        def one(dy: Any) -> Any:
            outputs = self._behind_taps(dy, spec)[..., None, :]
            windows = sum(
                outputs[..., f] * kernels[..., f] for f in range(spec.filters // spec.groups)
            )
            (dx,) = jax.linear_transpose(lambda x: _tiles(x, spec), like)(windows.astype(dy.dtype))
            return dx

        return lax.map(one, dy)

    def kernel_grad(self, x: Any, dy: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `lcmulti.backend.Implementation.kernel_grad`."""

        def add(total: Any, sample: tuple[Any, Any]) -> tuple[Any, None]:
            x, dy = sample
            windows = jnp.swapaxes(_tiles(widen(x), spec), -1, -2)[..., None]
            outputs = self._behind_taps(dy, spec)[..., None, :, :]
            shared = (windows * outputs).sum(spec.shared_axes)
            return total + shared.reshape(spec.kernel_shape), None

        zeros = jnp.zeros(spec.kernel_shape, DTYPES[x.dtype.name].accumulator)
        total, _ = lax.scan(add, zeros, (x, dy))
        return total.astype(x.dtype)

    def _behind_taps(self, dy: Any, spec: LocalConvSpec) -> Any:
        """``(*O, G*F) -> (*O, 1 for each side of a window, G, F)``."""
        sides = tuple(range(spec.ndim, 2 * spec.ndim))
        return jnp.expand_dims(widen(_by_group(dy, spec)), sides)


def _tiles(x: Any, spec: LocalConvSpec) -> Any:
    """``(*I, G*C) -> (*O, *k, G, C)``; what remains behind the last window is cut off."""
    axes = spec.ndim
    for axis, (n, k) in enumerate(zip(spec.output_size, spec.kernel_size, strict=True)):
        x = lax.slice_in_dim(x, 0, n * k, axis=axis)
    pairs = chain.from_iterable(zip(spec.output_size, spec.kernel_size, strict=True))
    x = x.reshape(*pairs, spec.groups, spec.in_channels // spec.groups)
    return x.transpose(*range(0, 2 * axes, 2), *range(1, 2 * axes, 2), 2 * axes, 2 * axes + 1)


def _by_group(array: Any, spec: LocalConvSpec) -> Any:
    """``(..., G*F) -> (..., G, F)``."""
    return array.reshape(*array.shape[:-1], spec.groups, spec.filters // spec.groups)


conv = Conv()
disjoint = Disjoint()
