"""PyTorch's own convolution, for a kernel that all positions share."""

from __future__ import annotations

from contextlib import nullcontext
from math import prod
from typing import Any

import torch
from torch import Tensor

from lcmulti.algorithms.composed import Composed, workspace
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.geometry.transposed import output_padding_of
from lcmulti.plugins.contract import Problem, Resources
from lcmulti_torch.blocked import blocked
from lcmulti_torch.composed import TorchOps, composed
from lcmulti_torch.memory import to_first, to_last
from lcmulti_torch.precision import convolutions_round
from lcmulti_torch.watched import is_transformed

_ops = TorchOps()
_CONVOLUTIONS = {
    1: torch.nn.functional.conv1d,
    2: torch.nn.functional.conv2d,
    3: torch.nn.functional.conv3d,
}
_TRANSPOSED = {
    1: torch.nn.functional.conv_transpose1d,
    2: torch.nn.functional.conv_transpose2d,
    3: torch.nn.functional.conv_transpose3d,
}


class TorchConvolution:
    """`lcmulti.backend.Implementation` by ``conv1d``, ``conv2d`` and ``conv3d``.

    Where cuDNN would round float32, patches and matrix products are used instead.
    """

    def decline(self, problem: Problem) -> str | None:
        """Serves a kernel that is shared along all axes, in up to 3D."""
        if not problem.spec.is_convolution:
            return "the kernel is not shared along all output axes"
        if prod(problem.spec.output_size) == 1:
            return "a single position is a matrix product"
        if problem.spec.ndim not in _CONVOLUTIONS:
            return f"PyTorch has no convolution in {problem.spec.ndim}D"
        if problem.device == "cpu" and _ends_the_process(problem.spec):
            return "oneDNN leaves memory for one channel and strides over the window in 3D"
        return None

    def workspace(self, problem: Problem) -> int:
        """Copies in PyTorch's order, and patches of a sample, which the convolution may make."""
        spec = problem.spec
        batch = problem.samples
        small = workspace(spec, spec.output_size, 1, problem.dtype)
        return 2 * spec.bytes(batch, problem.dtype) + 2 * small

    def forward(
        self, x: Tensor, kernel: Tensor, spec: LocalConvSpec, resources: Resources
    ) -> Tensor:
        """See `lcmulti.backend.Implementation.forward`."""
        if convolutions_round(x):
            return _patches(x, kernel).forward(x, kernel, spec, resources)
        with _no_autocast(x):
            padded = _ops.pad(to_first(_ops.widen(x)), ((0, 0), (0, 0), *spec.padding))
            y = _CONVOLUTIONS[spec.ndim](
                padded,
                _weight(kernel, spec),
                stride=spec.strides,
                dilation=spec.dilation,
                groups=spec.groups,
            )
        return _ops.narrow(to_last(y), x)

    def input_grad(
        self, dy: Tensor, kernel: Tensor, spec: LocalConvSpec, resources: Resources
    ) -> Tensor:
        """See `lcmulti.backend.Implementation.input_grad`."""
        if convolutions_round(dy):
            return _patches(dy, kernel).input_grad(dy, kernel, spec, resources)
        if is_transformed(dy, kernel):  # operations that exporters support
            return self._transposed(dy, kernel, spec)
        shape = (dy.shape[0], spec.in_channels, *spec.padded_size)
        x = torch.empty((1,), dtype=dy.dtype, device=dy.device).expand(shape)
        dx = _backward(dy, _ops.widen(x), _weight(kernel, spec), spec, wanted=0)
        return _unpadded(dx, dy, spec)

    def _transposed(self, dy: Tensor, kernel: Tensor, spec: LocalConvSpec) -> Tensor:
        with _no_autocast(dy):
            dx = _TRANSPOSED[spec.ndim](
                to_first(_ops.widen(dy)),
                _weight(kernel, spec),
                stride=spec.strides,
                output_padding=output_padding_of(spec),
                groups=spec.groups,
                dilation=spec.dilation,
            )
        return _unpadded(dx, dy, spec)

    def kernel_grad(
        self, x: Tensor, dy: Tensor, spec: LocalConvSpec, resources: Resources
    ) -> Tensor:
        """See `lcmulti.backend.Implementation.kernel_grad`."""
        if convolutions_round(x):
            return _patches(x, dy).kernel_grad(x, dy, spec, resources)
        padded = _ops.pad(to_first(_ops.widen(x)), ((0, 0), (0, 0), *spec.padding))
        shape = (spec.filters, spec.in_channels // spec.groups, *spec.kernel_size)
        weight = torch.empty((1,), dtype=padded.dtype, device=x.device).expand(shape)
        dweight = _backward(dy, padded, weight, spec, wanted=1)
        dkernel = dweight.movedim((0, 1), (spec.ndim + 1, spec.ndim)).reshape(spec.kernel_shape)
        return _ops.narrow(dkernel, x)


def _ends_the_process(spec: LocalConvSpec) -> bool:
    """Where PyTorch 2.13's `conv3d` reads outside of its arrays, on processors with AVX-512."""
    strides = zip(spec.strides, spec.kernel_size, strict=True)
    one = spec.in_channels == spec.groups
    return spec.ndim == 3 and one and any(stride > taps for stride, taps in strides)


def _patches(a: Tensor, b: Tensor) -> Composed:
    return composed if is_transformed(a, b) else blocked


def _unpadded(dx: Tensor, dy: Tensor, spec: LocalConvSpec) -> Tensor:
    """``(N, C, *padded_size) -> (N, *input_size, C)``, in the dtype of *dy*."""
    return _ops.narrow(to_last(dx)[(slice(None), *spec.inner)], dy)


def _no_autocast(x: Tensor) -> Any:
    kind = x.device.type
    return nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False)


def _weight(kernel: Tensor, spec: LocalConvSpec) -> Tensor:
    """``(1.., *k, C, F) -> (F, C, *k)``."""
    kernel = _ops.widen(kernel).reshape(kernel.shape[spec.ndim :])
    return kernel.movedim((spec.ndim + 1, spec.ndim), (0, 1))


def _backward(dy: Tensor, x: Tensor, weight: Tensor, spec: LocalConvSpec, wanted: int) -> Tensor:
    with _no_autocast(dy):
        return torch.ops.aten.convolution_backward(
            to_first(_ops.widen(dy)), x, weight, None, spec.strides,
            (0,) * spec.ndim, spec.dilation, False, (0,) * spec.ndim, spec.groups,
            [wanted == 0, wanted == 1, False],
        )[wanted]  # fmt: skip


conv = TorchConvolution()
