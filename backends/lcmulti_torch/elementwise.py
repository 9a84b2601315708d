"""For few weights at each position: products of whole planes are faster than tiny matrices.

A plane is one channel, or one filter, at all positions of all samples. For each weight of the
window, one plane is multiplied and added to another, with positions along the vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from torch import Tensor

from lcmulti.dtypes import DTYPES
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Problem, Resources
from lcmulti_torch.composed import TorchOps
from lcmulti_torch.memory import to_first, to_last

MOST_WEIGHTS = 16
"""Up to this many weights at a position, this is fastest (asv_benches/against_peers.py)."""

_ops = TorchOps()


class TorchElementwise:
    """`lcmulti.backend.Implementation` for windows of a few weights."""

    def decline(self, problem: Problem) -> str | None:
        """Serves up to `MOST_WEIGHTS` products for an output position."""
        spec = problem.spec
        if spec.terms * spec.filters > MOST_WEIGHTS:
            return f"more than {MOST_WEIGHTS} weights a position"
        return None

    def workspace(self, problem: Problem) -> int:
        """The padded input, one product of planes, and the kernel with its positions last."""
        spec = problem.spec
        batch = problem.samples
        padded = prod(spec.padded_size) * spec.in_channels if any(map(any, spec.padding)) else 0
        planes = batch * (padded + prod(spec.output_size))
        return (planes + prod(spec.kernel_shape)) * DTYPES[problem.dtype].itemsize

    def forward(
        self, x: Tensor, kernel: Tensor, spec: LocalConvSpec, resources: Resources
    ) -> Tensor:
        """See `lcmulti.backend.Implementation.forward`."""
        x, kernel = _padded(x, spec), _positions_last(kernel, spec)
        y = x.new_zeros((x.shape[0], spec.filters, *spec.output_size))
        for seen, channel, filter_, weight in _products(spec):
            y[:, filter_].addcmul_(x[:, channel][seen], kernel[weight])
        return to_last(y)

    def input_grad(
        self, dy: Tensor, kernel: Tensor, spec: LocalConvSpec, resources: Resources
    ) -> Tensor:
        """See `lcmulti.backend.Implementation.input_grad`."""
        dy, kernel = to_first(dy), _positions_last(kernel, spec)
        dx = dy.new_zeros((dy.shape[0], spec.in_channels, *spec.padded_size))
        for seen, channel, filter_, weight in _products(spec):
            dx[:, channel][seen].addcmul_(dy[:, filter_], kernel[weight])
        return to_last(dx[:, :, *spec.inner])

    def kernel_grad(
        self, x: Tensor, dy: Tensor, spec: LocalConvSpec, resources: Resources
    ) -> Tensor:
        """See `lcmulti.backend.Implementation.kernel_grad`."""
        x, dy = _padded(x, spec), to_first(dy)
        weights = (*spec.kernel_size, spec.in_channels // spec.groups, spec.filters)
        dkernel = x.new_empty((*weights, *spec.positions_shape))
        summed = (0, *(axis + 1 for axis in spec.shared_axes))
        for seen, channel, filter_, weight in _products(spec):
            product = x[:, channel][seen] * dy[:, filter_]
            dkernel[weight] = product.sum(summed).reshape(spec.positions_shape)
        taken = tuple(range(len(weights)))
        return dkernel.movedim(taken, tuple(axis + spec.ndim for axis in taken)).contiguous()


def _products(spec: LocalConvSpec) -> Iterator[tuple[tuple[slice, ...], int, int, tuple[int, ...]]]:
    """For each weight: part of the channel's plane, channel, filter, and index of the weight."""
    channels, filters = spec.in_channels // spec.groups, spec.filters // spec.groups
    for tap, seen in spec.taps():
        for filter_ in range(spec.filters):
            for c in range(channels):
                channel = filter_ // filters * channels + c
                yield (slice(None), *seen), channel, filter_, (*tap, c, filter_)


def _padded(x: Tensor, spec: LocalConvSpec) -> Tensor:
    """``(N, C, *padded_size)``."""
    return _ops.pad(to_first(x), ((0, 0), (0, 0), *spec.padding))


def _positions_last(kernel: Tensor, spec: LocalConvSpec) -> Tensor:
    """``(*k, C, F, *positions)``, so that each weight is a plane."""
    axes = tuple(range(spec.ndim))
    return kernel.movedim(axes, tuple(axis - spec.ndim for axis in axes)).contiguous()


elementwise = TorchElementwise()
