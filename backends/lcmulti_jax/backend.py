"""The JAX backend: conversions, facts about arrays, and derivatives."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lcmulti.dtypes import DTYPES, name_of
from lcmulti.errors import DtypeError
from lcmulti.operations.neighbours import CosineMaps, Link
from lcmulti.plugins.contract import (
    Facts,
    Implementation,
    ImplementationEntry,
    Map,
    Operation,
    Resources,
)
from lcmulti_jax import derivatives
from lcmulti_jax.array_operations import default_device
from lcmulti_jax.compat import divided
from lcmulti_jax.samples import repeated

__all__ = ["backend"]


class JaxBackend:
    """`lcmulti.backend.Backend` for JAX."""

    def prepare(self, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        """Return *arrays*: JAX has no automatic casts."""
        return arrays

    def read(self, variable: Any) -> Array:
        """See `Backend.read`. JAX itself cannot read the array of a state of Flax 0.10."""
        own = getattr(variable, "__jax_array__", None)
        array: Array = variable.value if own is None else own()
        return array

    def facts(self, array: Array, batched: bool = False) -> Facts:
        """See `Backend.facts`; what is not committed to a device is computed on the default one."""
        committed = not isinstance(array, jax.core.Tracer) and getattr(array, "committed", False)
        device = next(iter(array.devices())).platform if committed else default_device()
        shape = tuple(n if type(n) is int else None for n in array.shape)
        return Facts(shape, name_of(array.dtype), device)

    def from_numpy(self, array: np.ndarray, like: Array | None = None) -> Array:
        """Convert a copy, because JAX would go on reading memory that NumPy may change.

        Raises
        ------
        DtypeError
            For a dtype that JAX would round because its 64-bit mode is off.
        """
        if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
            enable = "jax.config.update('jax_enable_x64', True)"
            raise DtypeError("array", f"a dtype of 32 bits, or JAX with {enable}", array.dtype.name)
        device = None
        if like is not None and not isinstance(like, jax.core.Tracer) and len(like.devices()) == 1:
            device = like.device
        # `jnp.array` would compile a program for each shape.
        return jax.device_put(np.array(array), device)

    def held(self, array: Array) -> Any:
        """The part of an array that this process writes to a file of weights."""
        from lcmulti_jax.files import held

        return held(array)

    def to_numpy(self, array: Array) -> np.ndarray:
        """Copy to NumPy, because a view of JAX's memory is read-only."""
        return np.array(array)

    def on(self, device: str) -> AbstractContextManager[Any]:
        """A context that changes the default device."""
        return jax.default_device(jax.devices(device)[0])

    def move_axis(self, array: Array, source: int, destination: int) -> Array:
        """`numpy.moveaxis`."""
        return jnp.moveaxis(array, source, destination)

    def take(self, array: Array, indices: np.ndarray, axis: int) -> Array:
        """`numpy.take`."""
        return jnp.take(array, indices, axis)

    def add(self, y: Array, bias: Array) -> Array:
        """Add in the accumulator dtype, so that the gradient of the bias is summed in it."""
        return _sum(y, bias)

    def einsum(self, subscripts: str, *arrays: Array) -> Array:
        """See `Backend.einsum`."""
        wide = DTYPES[arrays[0].dtype.name].accumulator
        product = jnp.einsum(
            subscripts, *(each.astype(wide) for each in arrays), precision=jax.lax.Precision.HIGHEST
        )
        return product.astype(arrays[0].dtype)

    def pair_products(self, kernel: Array, pairs: Any) -> list[Array]:
        """See `lcmulti_jax.pairs`."""
        from lcmulti_jax.pairs import pair_products

        return list(pair_products(kernel, pairs))

    def neighbour_cosines(
        self,
        maps: CosineMaps,
        kernel: Array,
        bias: Array | None,
        links: tuple[Link, ...],
        resources: Resources,
    ) -> Array:
        """See `lcmulti_jax.cosines`."""
        from lcmulti_jax.cosines import neighbour_cosines

        return neighbour_cosines(maps, kernel, bias, links, resources)

    def close(
        self, implementation: Implementation, entry: ImplementationEntry, name: Map = "forward"
    ) -> Operation:
        """See `lcmulti_jax.derivatives`."""
        return derivatives.operation(implementation, entry.portable, name)

    def opaque(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Nothing traces Python code here."""
        return function

    def devices(self) -> list[str]:
        """The platform and model of each device."""
        return [f"{device.platform}:{device.id} {device.device_kind}" for device in jax.devices()]

    def vjp(
        self, function: Callable[..., Any], arrays: tuple[Array, ...], cotangent: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        """See `Backend.vjp`."""
        value, pull_back = jax.vjp(function, *arrays)
        return value, pull_back(cotangent)

    def jvp(
        self, function: Callable[..., Any], arrays: tuple[Array, ...], tangents: tuple[Array, ...]
    ) -> tuple[Array, Array]:
        """See `Backend.jvp`."""
        value, tangent = jax.jvp(function, arrays, tangents)
        return value, tangent


@jax.jit  # outside of a compiled function, one program in place of one for each operation
def _sum(y: Array, bias: Array) -> Array:
    wide = DTYPES[y.dtype.name].accumulator
    # Explicit, because JAX may be configured to refuse implicit promotion.
    full = jnp.broadcast_to(bias.astype(wide), y.shape[1:])
    fast = default_device() == "cpu" and not divided(y)
    full = repeated(full, y.shape[0]) if fast else full[None]
    return (y.astype(wide) + full).astype(y.dtype)


backend = JaxBackend()
