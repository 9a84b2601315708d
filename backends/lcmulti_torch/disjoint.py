"""Windows that tile the input: the patches are views of the input, and nothing is copied.

Along the last axis, a window is one contiguous run of ``kernel_size[-1] * in_channels`` elements.
Where windows have length 1 along all other axes, one view ``(N, P, run)`` of the input has the
windows of all positions. Elsewhere, each row of positions and each tap of the other axes has such a
view, and the products of the taps are summed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod

from torch import Tensor

from lcmulti.algorithms.blocked import CACHE_TARGET
from lcmulti.dtypes import DTYPES
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Problem, Resources
from lcmulti_torch.composed import TorchOps
from lcmulti_torch.watched import is_transformed

_ops = TorchOps()


class TorchDisjoint:
    """`lcmulti.backend.Implementation` for stride == kernel size, without padding."""

    def decline(self, problem: Problem) -> str | None:
        """Serves where views give all windows; under a transform, where a single view does."""
        spec = problem.spec
        if not spec.is_disjoint:
            return "windows overlap, leave gaps or reach into padding"
        if spec.shared_axes or spec.groups > 1:
            return "weights are shared along an axis, or channels come in groups"
        if problem.transformed and not _is_one_view(spec):
            return "a transform would unroll its loop over rows"
        if prod(spec.kernel_size[:-1]) > 1 and problem.dtype in ("float16", "bfloat16"):
            return "the products of the taps would be summed in half precision"
        return None

    def workspace(self, problem: Problem) -> int:
        """The factors and the product of one piece."""
        one = _position(problem.spec, problem.samples, problem.dtype)
        room = _room(problem.device, problem.resources)
        return min(prod(problem.spec.output_size) * one, max(room, one))

    def forward(
        self, x: Tensor, kernel: Tensor, spec: LocalConvSpec, resources: Resources
    ) -> Tensor:
        """See `lcmulti.backend.Implementation.forward`."""
        if is_transformed(x, kernel):
            y = _product(_runs(x, spec).movedim(0, 1), _matrices(kernel, spec))
            return y.movedim(0, 1).reshape(-1, *spec.output_shape)
        y = x.new_zeros((x.shape[0], *spec.output_shape))
        for runs, matrices, out in _pieces(x, kernel, y, spec, resources):
            out.add_(_product(runs, matrices))
        return y

    def input_grad(
        self, dy: Tensor, kernel: Tensor, spec: LocalConvSpec, resources: Resources
    ) -> Tensor:
        """See `lcmulti.backend.Implementation.input_grad`."""
        if is_transformed(dy, kernel):
            dx = _product(_outputs(dy, spec).movedim(0, 1), _matrices(kernel, spec).transpose(1, 2))
            return dx.movedim(0, 1).reshape(-1, *spec.input_shape)
        dx = dy.new_zeros((dy.shape[0], *spec.input_shape))
        for runs, matrices, out in _pieces(dx, kernel, dy, spec, resources):
            runs.copy_(_product(out, matrices.mT))
        return dx

    def kernel_grad(
        self, x: Tensor, dy: Tensor, spec: LocalConvSpec, resources: Resources
    ) -> Tensor:
        """See `lcmulti.backend.Implementation.kernel_grad`."""
        if is_transformed(x, dy):
            runs, out = _runs(x, spec).movedim(0, 1), _outputs(dy, spec).movedim(0, 1)
            return _product(runs.transpose(1, 2), out).reshape(spec.kernel_shape)
        dkernel = x.new_zeros(spec.kernel_shape)
        for runs, matrices, out in _pieces(x, dkernel, dy, spec, resources):
            matrices.copy_(_product(runs.mT, out))
        return dkernel


def _is_one_view(spec: LocalConvSpec) -> bool:
    tiles = zip(spec.output_size, spec.strides, spec.input_size, strict=True)
    return prod(spec.kernel_size[:-1]) == 1 and all(n * s == size for n, s, size in tiles)


def _product(a: Tensor, b: Tensor) -> Tensor:
    return _ops.narrow(_ops.matmul(_ops.widen(a), _ops.widen(b)), a)


def _runs(x: Tensor, spec: LocalConvSpec) -> Tensor:
    """``(N, *I, C)`` as ``(N, P, run)`` or ``(N, *leading I, last O, run)``."""
    last, window = spec.output_size[-1], spec.kernel_size[-1]
    if _is_one_view(spec):
        return x.reshape(-1, prod(spec.output_size), window * spec.in_channels)
    return x[..., : last * window, :].unflatten(-2, (last, window)).flatten(-2)


def _matrices(kernel: Tensor, spec: LocalConvSpec) -> Tensor:
    """``(P, run, F)`` or ``(*leading O, last O, *leading k, run, F)``."""
    run = (spec.kernel_size[-1] * spec.in_channels, spec.filters)
    if _is_one_view(spec):
        return kernel.reshape(-1, *run)
    return kernel.reshape(*spec.output_size, *spec.kernel_size[:-1], *run)


def _outputs(y: Tensor, spec: LocalConvSpec) -> Tensor:
    """``(N, P, F)`` or ``(N, *O, F)``."""
    return y.reshape(-1, prod(spec.output_size), spec.filters) if _is_one_view(spec) else y


def _position(spec: LocalConvSpec, samples: int, dtype: str) -> int:
    """Bytes that one position's factors and product take, in the accumulator dtype."""
    run = spec.kernel_size[-1] * spec.in_channels
    kernel = run * spec.filters if DTYPES[dtype].is_half else 0
    wide = DTYPES[DTYPES[dtype].accumulator].itemsize
    return (max(samples, 1) * (2 * run + spec.filters) + kernel) * wide


def _room(device: str, resources: Resources) -> int:
    most = resources.max_workspace
    return min(CACHE_TARGET, most) if device == "cpu" else most


def _pieces(
    x: Tensor, kernel: Tensor, y: Tensor, spec: LocalConvSpec, resources: Resources
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Views ``(p, N, run)`` of x, ``(p, run, F)`` of the kernel and ``(p, N, F)`` of y.

    Together they cover the operation. On a CPU, ``p`` is so small that a piece stays in the cache.
    For an input in another memory layout, such as channels first, a piece is copied.
    """
    window, size, taps = spec.kernel_size[-1], spec.output_size, spec.kernel_size[:-1]
    if _is_one_view(spec) and x.is_contiguous() and y.is_contiguous():
        x, y = x.flatten(1, spec.ndim), y.flatten(1, spec.ndim)
        size, taps = (prod(size),), ()
    kernel = kernel.reshape(*size, *taps, window * spec.in_channels, spec.filters)
    one = _position(spec, len(x), str(x.dtype)[6:])
    step = max(_room(x.device.type, resources) // one, 1)
    for o, t in product(product(*map(range, size[:-1])), product(*map(range, taps))):
        row = tuple(a * k + b for a, k, b in zip(o, taps, t, strict=True))
        for first in range(0, size[-1], step):
            last = min(first + step, size[-1])
            runs = x[(slice(None), *row, slice(first * window, last * window))]
            yield (
                runs.unflatten(1, (last - first, window)).flatten(2).movedim(0, 1),
                kernel[(*o, slice(first, last), *t)],
                y[(slice(None), *o, slice(first, last))].movedim(0, 1),
            )


disjoint = TorchDisjoint()
