"""The arrays of a divided operation: their shapes and shardings, and how they are made."""

from __future__ import annotations

from collections.abc import Callable
from math import prod, sqrt
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lcmulti.errors import ArgumentError, ShapeError, described
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti_jax import base
from lcmulti_jax.halos import Names
from lcmulti_jax.partitioning import Placed
from lcmulti_jax.parts import with_copies

__all__ = ["ShardedArrays"]


class ShardedArrays:
    """The shapes and shardings of the arrays of a divided operation. It makes them, too.

    Divided axes are multiples of the number of devices. Elements beyond the layer are never read,
    and their gradient is zero.
    """

    def __init__(self, spec: LocalConvSpec, where: Placed, transposed: bool) -> None:
        if transposed and spec.padding_mode != "zeros":
            raise ArgumentError("spec", "padding_mode 'zeros' for a transposed operation", spec)
        self.spec = spec
        self.transposed = transposed
        self._where = where
        self._inner = with_copies(spec)
        self._roles = ("y", "x") if transposed else ("x", "y")

    @property
    def mesh(self) -> Mesh:
        """The mesh of the arrays, with automatic axes."""
        return self._where.mesh

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of the kernel that the layer takes."""
        return self._where.shape("kernel", self._inner, 1)

    @property
    def kernel_sharding(self) -> NamedSharding:
        """The sharding of it."""
        return self._where.sharding("kernel", self._inner)

    @property
    def bias_shape(self) -> tuple[int, ...]:
        """Shape of a bias, with 1 along axes along which the kernel is shared."""
        full = self._where.shape(self._roles[1], self._inner, 1)[1:]
        shared = self.spec.shared_axes
        return tuple(1 if axis in shared else n for axis, n in enumerate(full))

    @property
    def bias_sharding(self) -> NamedSharding:
        """The sharding of it."""
        spec = self._where.split.positions
        own = (() if a in self.spec.shared_axes else names for a, names in enumerate(spec))
        return self._sharding(*own, ())

    def input_shape(self, batch: int) -> tuple[int, ...]:
        """Shape of an evenly divided input; elements beyond the layer's input are never read."""
        shape = self._where.shape(self._roles[0], self._inner, batch)
        last = self.spec.data_format == "channels_last"
        return shape if last else (shape[0], shape[-1], *shape[1:-1])

    @property
    def input_sharding(self) -> NamedSharding:
        """The sharding that the layer needs of its input; other inputs are moved to it."""
        axes = (self._where.split.samples, *self._where.split.positions)
        last = self.spec.data_format == "channels_last"
        return self._sharding(*axes, ()) if last else self._sharding(axes[0], (), *axes[1:])

    def _sharding(self, *axes: Names) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*(names or None for names in axes)))

    def init(
        self,
        key: Any,
        init: Callable[[Any, tuple[int, ...], Any], Any] | None = None,
        dtype: Any = None,
    ) -> tuple[Array, Array]:
        """Draw a kernel, and make a bias of zeros. Each device draws its own part.

        The values do not depend on the number of devices.

        Parameters
        ----------
        key : PRNG key
        init : callable, optional
            ``(key, shape, dtype) -> array``, called with the shape of one position. None draws
            uniformly within the limits of `equinox.nn.Conv` and `torch.nn.Conv2d`.
        dtype : optional
            None means float32, or float64 in JAX's 64-bit mode.
        """
        dtype = jnp.zeros(()).dtype if dtype is None else dtype
        limit = 1 / sqrt(self.spec.terms)

        def uniform(key: Any, shape: tuple[int, ...], dtype: Any) -> Any:
            return jax.random.uniform(key, shape, dtype, -limit, limit)

        draw = uniform if init is None else init
        kernel = base.at_every_position(
            lambda key, shape: draw(key, shape, dtype),
            key,
            self.spec.positions_shape,
            self.spec.kernel_shape[self.spec.ndim :],
            self.kernel_sharding,
        )
        zeros = jax.jit(lambda: jnp.zeros(self.bias_shape, dtype), out_shardings=self.bias_sharding)
        return kernel, zeros()

    def put(self, array: Array) -> Array:
        """Divide a whole kernel or bias. Each device copies its own rows.

        Parameters
        ----------
        array : array-like
            ``spec.kernel_shape`` or the shape of a bias: an array of this process, or a file opened
            with `numpy.memmap`.
        """
        shape = tuple(array.shape)
        for wanted, padded, sharding in (
            (self.spec.kernel_shape, self.kernel_shape, self.kernel_sharding),
            (self._whole_bias_shape(), self.bias_shape, self.bias_sharding),
        ):
            if shape == wanted:
                return jax.make_array_from_callback(
                    padded,
                    sharding,
                    lambda index: _rows(array, index, padded),  # noqa: B023
                )
        kernel, bias = self.spec.kernel_shape, self._whole_bias_shape()
        expected = f"shape {kernel} of a kernel or {bias} of a bias"
        raise ShapeError("array", expected, described(str(shape)))

    def whole(self, array: Array) -> Array:
        """A kernel or a bias, or a gradient of one, without the elements beyond the layer."""
        for wanted, padded in (
            (self.spec.kernel_shape, self.kernel_shape),
            (self._whole_bias_shape(), self.bias_shape),
        ):
            if tuple(array.shape) == padded:
                return array[tuple(map(slice, wanted))]
        expected = f"shape {self.kernel_shape} of a kernel or {self.bias_shape} of a bias"
        raise ShapeError("array", expected, described(str(tuple(array.shape))))

    def _whole_bias_shape(self) -> tuple[int, ...]:
        spec = self.spec
        sizes = spec.input_size if self.transposed else spec.output_size
        channels = spec.in_channels if self.transposed else spec.filters
        shared = spec.shared_axes
        return (*(1 if a in shared else n for a, n in enumerate(sizes)), channels)


def _rows(array: Array, index: tuple[slice, ...], shape: tuple[int, ...]) -> np.ndarray:
    """A part of *array* with zeros at the end of its axes."""
    ranges = [range(*each.indices(n)) for each, n in zip(index, shape, strict=True)]
    part = np.asarray(array[index])
    missing = [(0, len(each) - n) for each, n in zip(ranges, part.shape, strict=True)]
    return np.pad(part, missing) if prod(part.shape) != prod(map(len, ranges)) else part
