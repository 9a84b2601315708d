"""XLA's own convolution, for a kernel that all positions share."""

from __future__ import annotations

from math import prod
from operator import gt

import jax
from jax import Array, lax

from lcmulti.dtypes import DTYPES
from lcmulti.geometry.shapes import window_extent
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Problem, Resources
from lcmulti_jax.array_operations import widen

__all__ = ["conv"]


class JaxConvolution:
    """`lcmulti.backend.Implementation` by XLA's convolution and its transposes."""

    def decline(self, problem: Problem) -> str | None:
        """Serves one shared kernel; on a GPU only where XLA computes it correctly.

        In JAX 0.11.2 on an H100, `lcmulti certify jax --device gpu` found wrong gradients of
        grouped kernels in 4D, and gradients in which NaN spread over gaps between windows, because
        XLA multiplies these as zeros.
        """
        if not problem.spec.is_convolution:
            return "the kernel is not shared along all output axes"
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
        """Input and output: padded, in another order and in the accumulator dtype."""
        spec = problem.spec
        batch = problem.samples
        elements = batch * (prod(spec.padded_size) * spec.in_channels + prod(spec.output_shape))
        return 2 * elements * DTYPES[DTYPES[problem.dtype].accumulator].itemsize

    def forward(self, x: Array, kernel: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        """See `lcmulti.backend.Implementation.forward`."""
        return self._convolve(widen(x), widen(kernel), spec).astype(x.dtype)

    def input_grad(
        self, dy: Array, kernel: Array, spec: LocalConvSpec, resources: Resources
    ) -> Array:
        """See `lcmulti.backend.Implementation.input_grad`."""
        wide = widen(dy)
        x = jax.ShapeDtypeStruct((dy.shape[0], *spec.input_shape), wide.dtype)
        kernel = widen(kernel)
        (dx,) = jax.linear_transpose(lambda x: self._convolve(x, kernel, spec), x)(wide)
        return dx.astype(dy.dtype)

    def kernel_grad(self, x: Array, dy: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        """See `lcmulti.backend.Implementation.kernel_grad`."""
        wide = widen(x)
        kernel = jax.ShapeDtypeStruct(spec.kernel_shape, wide.dtype)
        (dkernel,) = jax.linear_transpose(lambda k: self._convolve(wide, k, spec), kernel)(
            widen(dy)
        )
        return dkernel.astype(x.dtype)

    def _convolve(self, x: Array, kernel: Array, spec: LocalConvSpec) -> Array:
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


conv = JaxConvolution()
