"""TensorFlow's own convolution, for a kernel that all positions share."""

from __future__ import annotations

from math import prod
from typing import Any

import tensorflow as tf

from lcmulti.dtypes import DTYPES
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Problem, Resources
from lcmulti_tensorflow.composed import ops

PATCHES = 30 * 2**20
"""Bytes of factors that TensorFlow multiplies at once, or one sample's: a constant in its source,
`target_working_set_size` in ``conv_grad_filter_ops.cc``."""


class TensorFlowConvolution:
    """`lcmulti.backend.Implementation` by ``Conv2D`` and ``Conv3D`` and their two gradients."""

    def decline(self, problem: Problem) -> str | None:
        """Serves what TensorFlow can compute on every device, including gradients."""
        spec = problem.spec
        if not spec.is_convolution:
            return "the kernel is not shared along all output axes"
        if prod(spec.output_size) == 1:
            return "a single position is a matrix product"
        if spec.ndim > 3:
            return f"TensorFlow has no {spec.ndim}D convolution"
        if spec.groups > 1:
            return "TensorFlow has no gradient of a grouped convolution on a CPU"
        if any(d > 1 for d in spec.dilation):
            return "TensorFlow has no gradient of a dilated convolution on a CPU"
        return None

    def workspace(self, problem: Problem) -> int:
        """The padded input, input and output in the layout that the convolution prefers, patches.

        On a CPU, the gradients copy the patches of some samples at a time.
        """
        spec, batch = problem.spec, problem.samples
        itemsize = DTYPES[DTYPES[problem.dtype].accumulator].itemsize
        kernel, positions = prod(spec.kernel_shape), prod(spec.output_size)
        elements = 2 * batch * (prod(spec.padded_size) * spec.in_channels + prod(spec.output_shape))
        sample = positions * spec.terms
        factors = sample + prod(spec.output_shape) + kernel
        together = min(batch, -(-PATCHES // (factors * itemsize)))
        return (elements + 2 * kernel + together * sample) * itemsize

    def forward(
        self, x: tf.Tensor, kernel: tf.Tensor, spec: LocalConvSpec, resources: Resources
    ) -> tf.Tensor:
        """See `lcmulti.backend.Implementation.forward`."""
        arguments = _input(x, spec), _kernel(kernel, spec)
        convolve = tf.raw_ops.Conv3D if spec.ndim == 3 else tf.raw_ops.Conv2D
        y = convolve(input=arguments[0], filter=arguments[1], **_options(spec))
        return ops.narrow(tf.reshape(y, (-1, *spec.output_size, spec.filters)), x)

    def input_grad(
        self, dy: tf.Tensor, kernel: tf.Tensor, spec: LocalConvSpec, resources: Resources
    ) -> tf.Tensor:
        """See `lcmulti.backend.Implementation.input_grad`."""
        size = (tf.shape(dy)[0], *_lifted(spec.padded_size, 1), spec.in_channels)
        arguments = {"filter": _kernel(kernel, spec), "out_backprop": _output(dy, spec)}
        if spec.ndim == 3:
            dx = tf.raw_ops.Conv3DBackpropInputV2(input_sizes=size, **arguments, **_options(spec))
        else:
            dx = tf.raw_ops.Conv2DBackpropInput(input_sizes=size, **arguments, **_options(spec))
        dx = tf.reshape(dx, (-1, *spec.padded_size, spec.in_channels))
        return ops.narrow(dx[(slice(None), *spec.inner)], dy)

    def kernel_grad(
        self, x: tf.Tensor, dy: tf.Tensor, spec: LocalConvSpec, resources: Resources
    ) -> tf.Tensor:
        """See `lcmulti.backend.Implementation.kernel_grad`."""
        size = (*_lifted(spec.kernel_size, 1), spec.in_channels, spec.filters)
        arguments = {"input": _input(x, spec), "out_backprop": _output(dy, spec)}
        if spec.ndim == 3:
            dkernel = tf.raw_ops.Conv3DBackpropFilterV2(
                filter_sizes=size, **arguments, **_options(spec)
            )
        else:
            dkernel = tf.raw_ops.Conv2DBackpropFilter(
                filter_sizes=size, **arguments, **_options(spec)
            )
        return ops.narrow(tf.reshape(dkernel, spec.kernel_shape), x)


def _lifted(sizes: tuple[int, ...], filler: int) -> tuple[int, ...]:
    """Turn one spatial axis into two, as TensorFlow's own 1D convolution does."""
    return (filler, *sizes) if len(sizes) == 1 else sizes


def _options(spec: LocalConvSpec) -> dict[str, Any]:
    return {"strides": [1, *_lifted(spec.strides, 1), 1], "padding": "VALID"}


def _input(x: tf.Tensor, spec: LocalConvSpec) -> tf.Tensor:
    x = ops.pad(ops.widen(x), ((0, 0), *spec.padding, (0, 0)))
    return tf.reshape(x, (-1, *_lifted(spec.padded_size, 1), spec.in_channels))


def _output(dy: tf.Tensor, spec: LocalConvSpec) -> tf.Tensor:
    return tf.reshape(ops.widen(dy), (-1, *_lifted(spec.output_size, 1), spec.filters))


def _kernel(kernel: tf.Tensor, spec: LocalConvSpec) -> tf.Tensor:
    shape = (*_lifted(spec.kernel_size, 1), spec.in_channels, spec.filters)
    return tf.reshape(ops.widen(kernel), shape)


conv = TensorFlowConvolution()
