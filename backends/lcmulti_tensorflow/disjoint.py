"""Windows that tile the input: the input itself, seen window by window, is the patches.

One transposition brings positions to the front, one batched product computes them all.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

from lcmulti.backend import Problem, Resources
from lcmulti.composed import Composed
from lcmulti.dtypes import DTYPES
from lcmulti.spec import LocalConvSpec
from lcmulti_tensorflow.ops import ops


class Disjoint(Composed):
    """`Composed` that views and transposes where others gather and scatter."""

    def decline(self, problem: Problem) -> str | None:
        """Serves windows that neither overlap nor leave gaps, without padding."""
        return None if problem.spec.is_disjoint else "windows do not tile the input"

    def workspace(self, problem: Problem) -> int:
        """Both factors and the product in matrix order, and on their way from half types."""
        spec, dtype = problem.spec, DTYPES[problem.dtype]
        batch = problem.samples
        elements = batch * (prod(spec.input_shape) + prod(spec.output_shape))
        if dtype.is_half or spec.groups > 1:
            elements += elements + 2 * prod(spec.kernel_shape)
        return elements * DTYPES[dtype.accumulator].itemsize

    def input_grad(self, dy: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `lcmulti.backend.Implementation.input_grad`."""
        ops = self.ops
        kernels = self._kernel_matrices(kernel, spec)
        patches = ops.matmul(self._by_position(dy, (), spec), kernels, transpose_b=True)
        sizes, axes = _view(spec), _positions_first(spec)
        ordered = [sizes[axis] for axis in axes]
        order = sorted(range(len(axes)), key=axes.__getitem__)
        dx = ops.permute(ops.reshape(patches, tuple(ordered)), tuple(order))
        seen = tuple(n * k for n, k in zip(spec.output_size, spec.kernel_size, strict=True))
        dx = ops.reshape(dx, (-1, *seen, spec.in_channels))
        unseen = ((0, n - m) for n, m in zip(spec.input_size, seen, strict=True))
        return ops.narrow(ops.pad(dx, ((0, 0), *unseen, (0, 0))), dy)

    def _patch_matrices(self, x: Any, spec: LocalConvSpec) -> Any:
        ops = self.ops
        pairs = zip(spec.output_size, spec.kernel_size, strict=True)
        seen = tuple(slice(0, n * k) for n, k in pairs)
        x = ops.reshape(ops.widen(x[(slice(None), *seen)]), _view(spec))
        matrices = prod(spec.positions_shape) * spec.groups
        return ops.reshape(ops.permute(x, _positions_first(spec)), (matrices, -1, spec.terms))


def _view(spec: LocalConvSpec) -> tuple[int, ...]:
    """``(N, O, k, O, k, ..., G, C)``."""
    pairs = zip(spec.output_size, spec.kernel_size, strict=True)
    channels = (spec.groups, spec.in_channels // spec.groups)
    return (-1, *(size for pair in pairs for size in pair), *channels)


@lru_cache(maxsize=1024)
def _positions_first(spec: LocalConvSpec) -> tuple[int, ...]:
    """Permutation of `_view` to ``(*U, G, *S, N, *k, C)``."""
    axes = range(spec.ndim)
    own = (1 + 2 * axis for axis in axes if axis not in spec.shared_axes)
    shared = (1 + 2 * axis for axis in spec.shared_axes)
    taps = (2 + 2 * axis for axis in axes)
    group = 1 + 2 * spec.ndim
    return (*own, group, *shared, 0, *taps, group + 1)


disjoint = Disjoint(ops)
