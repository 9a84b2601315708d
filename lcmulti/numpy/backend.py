"""The NumPy backend: the reference, and the blocked implementation.

NumPy has no automatic differentiation. Users call the three maps themselves for derivatives
(`lcmulti.reference`, `Implementation`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from lcmulti.algorithms import reference
from lcmulti.algorithms.blocked import Blocked
from lcmulti.algorithms.composed import workspace
from lcmulti.dtypes import DTYPES, name_of
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.operations.neighbours import CosineMaps, Link
from lcmulti.plugins.contract import (
    Facts,
    Implementation,
    ImplementationEntry,
    Map,
    Operation,
    Problem,
    Resources,
)
from lcmulti.types import Array

MOST_AXES = 64
"""Axes of a NumPy array."""

__all__ = [
    "NumpyBackend",
    "NumpyBlocked",
    "NumpyOps",
    "backend",
    "blocked",
    "reference_implementation",
]


class NumpyBackend:
    """`lcmulti.backend.Backend` for NumPy."""

    def prepare(self, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        """Nothing to prepare."""
        return arrays

    def read(self, variable: Any) -> np.ndarray:
        """See `Backend.read`; Keras on NumPy has variables."""
        array: np.ndarray = variable.value
        return array

    def facts(self, array: Array, batched: bool = False) -> Facts:
        """See `Backend.facts`."""
        return Facts(array.shape, name_of(array.dtype), "cpu")

    def from_numpy(self, array: np.ndarray, like: Array | None = None) -> Array:
        """Return *array*."""
        return array

    def to_numpy(self, array: Array) -> np.ndarray:
        """Return *array*."""
        result: np.ndarray = array
        return result

    def on(self, device: str) -> AbstractContextManager[Any]:
        """NumPy has one device, the CPU."""
        return nullcontext()

    def move_axis(self, array: Array, source: int, destination: int) -> Array:
        """`numpy.moveaxis`."""
        return np.moveaxis(array, source, destination)

    def take(self, array: Array, indices: np.ndarray, axis: int) -> Array:
        """`numpy.take`."""
        return np.take(array, indices, axis)

    def add(self, y: Array, bias: Array) -> Array:
        """See `Backend.add`."""
        return y + bias

    def einsum(self, subscripts: str, *arrays: Array) -> Array:
        """See `Backend.einsum`."""
        wide = DTYPES[arrays[0].dtype.name].accumulator
        product = np.einsum(
            subscripts, *(each.astype(wide, copy=False) for each in arrays), optimize=True
        )
        return np.asarray(product, arrays[0].dtype)  # a sum over all axes is a scalar, not an array

    def neighbour_cosines(
        self,
        maps: CosineMaps,
        kernel: Array,
        bias: Array | None,
        links: tuple[Link, ...],
        resources: Resources,
    ) -> Array:
        """See `lcmulti.operations.neighbours.CosineMaps`."""
        own = *kernel.shape[:2], kernel.shape[-1]
        full = np.zeros(own, kernel.dtype) if bias is None else np.broadcast_to(bias, own)
        return np.asarray(maps.cosine_sums(kernel, full, links, resources)[3].sum() / 2)

    def close(
        self, implementation: Implementation, entry: ImplementationEntry, name: Map = "forward"
    ) -> Operation:
        """The map itself: NumPy cannot differentiate."""
        operation: Operation = getattr(implementation, name)
        return operation

    def opaque(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Nothing traces Python code here."""
        return function

    def devices(self) -> list[str]:
        """The CPU."""
        return ["cpu"]

    def vjp(
        self, function: Callable[..., Any], arrays: tuple[Array, ...], cotangent: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        """NumPy cannot differentiate."""
        raise NotImplementedError("NumPy has no automatic differentiation")

    def jvp(
        self, function: Callable[..., Any], arrays: tuple[Array, ...], tangents: tuple[Array, ...]
    ) -> tuple[Array, Array]:
        """NumPy cannot differentiate."""
        raise NotImplementedError("NumPy has no automatic differentiation")


class Reference:
    """`lcmulti.reference` as an implementation: short and slow."""

    def decline(self, problem: Problem) -> str | None:
        """Serves every call."""
        return None

    def workspace(self, problem: Problem) -> int:
        """One tap's input and product at every position, and the padded input."""
        spec = problem.spec
        return workspace(spec, spec.output_size, problem.samples, problem.dtype)

    def forward(self, x: Array, kernel: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        """See `lcmulti.reference.forward`."""
        return reference.forward(x, kernel, spec)

    def input_grad(
        self, dy: Array, kernel: Array, spec: LocalConvSpec, resources: Resources
    ) -> Array:
        """See `lcmulti.reference.input_grad`."""
        return reference.input_grad(dy, kernel, spec)

    def kernel_grad(self, x: Array, dy: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        """See `lcmulti.reference.kernel_grad`."""
        return reference.kernel_grad(x, dy, spec)


class NumpyOps:
    """`lcmulti.composed.ArrayOps` for NumPy."""

    def reshape(self, array: Array, shape: tuple[int, ...]) -> Array:
        """See `ArrayOps`."""
        return array.reshape(shape)

    def permute(self, array: Array, axes: tuple[int, ...]) -> Array:
        """See `ArrayOps`."""
        return array.transpose(axes)

    def stack(self, arrays: list[Array], axis: int) -> Array:
        """See `ArrayOps`."""
        return np.stack(arrays, axis)

    def pad(self, array: Array, pairs: tuple[tuple[int, int], ...]) -> Array:
        """See `ArrayOps`."""
        return np.pad(array, pairs) if any(map(any, pairs)) else array

    def matmul(
        self, a: Array, b: Array, transpose_a: bool = False, transpose_b: bool = False
    ) -> Array:
        """See `ArrayOps`."""
        return np.matmul(
            a.swapaxes(1, 2) if transpose_a else a, b.swapaxes(1, 2) if transpose_b else b
        )

    def widen(self, array: Array) -> Array:
        """See `ArrayOps`."""
        return array.astype(DTYPES[array.dtype.name].accumulator, copy=False)

    def narrow(self, array: Array, like: Array) -> Array:
        """See `ArrayOps`."""
        return array.astype(like.dtype, copy=False)


class NumpyBlocked(Blocked):
    """Blocks with strided views for windows and in-place sums."""

    def decline(self, problem: Problem) -> str | None:
        """Serves every call whose patches have no more axes than a NumPy array may have."""
        # Patches in matrix order have these axes: positions, taps, batch, group and channel.
        if 2 * problem.spec.ndim + 3 > MOST_AXES:
            return f"NumPy has no arrays of more than {MOST_AXES} axes"
        return None

    def new(self, shape: tuple[int, ...], like: Array, wide: bool, zeros: bool) -> Array:
        """See `Blocked.new`."""
        dtype = DTYPES[like.dtype.name].accumulator if wide else like.dtype
        return np.zeros(shape, dtype) if zeros else np.empty(shape, dtype)

    def facts(self, array: Array) -> Facts:
        """See `Blocked.facts`."""
        return Facts(array.shape, name_of(array.dtype), "cpu")

    def windows(self, x: Array, spec: LocalConvSpec) -> Array:
        """A view; putting it in matrix order copies it."""
        batch, *steps, channel = x.strides
        shape = (len(x), *spec.output_size, *spec.kernel_size, x.shape[-1])
        outer = (step * s for step, s in zip(steps, spec.strides, strict=True))
        taps = (step * d for step, d in zip(steps, spec.dilation, strict=True))
        return np.lib.stride_tricks.as_strided(
            x, shape, (batch, *outer, *taps, channel), writeable=False
        )

    def fold(self, patches: Array, spec: LocalConvSpec) -> Array:
        """One strided sum a tap, in place."""
        x = np.zeros((len(patches), *spec.input_size, patches.shape[-1]), patches.dtype)
        for tap, seen in spec.taps():
            x[(slice(None), *seen)] += patches[(..., *tap, slice(None))]
        return x


backend = NumpyBackend()
reference_implementation = Reference()
blocked = NumpyBlocked(NumpyOps())
