"""The JAX backend: arrays in and out of it, and what dispatch asks of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lcmulti.dtypes import DTYPES, name_of
from lcmulti.errors import DtypeError
from lcmulti.plugins.contract import Facts, Implementation, ImplementationEntry, Map, Operation
from lcmulti_jax import derivatives
from lcmulti_jax.array_operations import default_device

__all__ = ["backend"]


class JaxBackend:
    """`lcmulti.backend.Backend` for JAX."""

    def prepare(self, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
        """Nothing to prepare: JAX has neither variables nor automatic casts."""
        return arrays

    def facts(self, array: Any, batched: bool = False) -> Facts:
        """See `Backend.facts`; what is not committed to a device is computed on the default one."""
        committed = not isinstance(array, jax.core.Tracer) and getattr(array, "committed", False)
        device = next(iter(array.devices())).platform if committed else default_device()
        shape = tuple(n if type(n) is int else None for n in array.shape)
        return Facts(shape, name_of(array.dtype), device)

    def from_numpy(self, array: np.ndarray, like: Any = None) -> Any:
        """Convert a copy, for JAX would keep reading memory that NumPy may write to.

        Raises
        ------
        DtypeError
            For a dtype JAX would round, because its 64-bit mode is off.
        """
        if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
            enable = "jax.config.update('jax_enable_x64', True)"
            raise DtypeError("array", f"a dtype of 32 bits, or JAX with {enable}", array.dtype.name)
        concrete = like is not None and not isinstance(like, jax.core.Tracer)
        device = like.device if concrete and len(like.devices()) == 1 else None
        return jnp.array(array, device=device)

    def held(self, array: Any) -> Any:
        """What this process writes of an array to a file of weights."""
        from lcmulti_jax.files import held

        return held(array)

    def to_numpy(self, array: Any) -> np.ndarray:
        """Copy to NumPy, for what JAX shows of its own memory may not be written to."""
        return np.array(array)

    def on(self, device: str) -> AbstractContextManager[Any]:
        """The default device, changed."""
        return jax.default_device(jax.devices(device)[0])

    def move_axis(self, array: Any, source: int, destination: int) -> Any:
        """`numpy.moveaxis`."""
        return jnp.moveaxis(array, source, destination)

    def take(self, array: Any, indices: np.ndarray, axis: int) -> Any:
        """`numpy.take`."""
        return jnp.take(array, indices, axis)

    def add(self, y: Any, bias: Any) -> Any:
        """In the accumulator dtype, so that the gradient of the bias is summed there."""
        wide = DTYPES[y.dtype.name].accumulator
        of_rank = jnp.expand_dims(bias, range(y.ndim - bias.ndim))  # JAX may be told to ask for it
        return (y.astype(wide) + of_rank.astype(wide)).astype(y.dtype)

    def einsum(self, subscripts: str, *arrays: Any) -> Any:
        """See `Backend.einsum`."""
        wide = DTYPES[arrays[0].dtype.name].accumulator
        product = jnp.einsum(
            subscripts, *(each.astype(wide) for each in arrays), precision=jax.lax.Precision.HIGHEST
        )
        return product.astype(arrays[0].dtype)

    def pair_products(self, kernel: Any, pairs: Any) -> list[Any]:
        """See `lcmulti_jax.pairs`."""
        from lcmulti_jax.pairs import pair_products

        return list(pair_products(kernel, pairs))

    def close(
        self, implementation: Implementation, entry: ImplementationEntry, name: Map = "forward"
    ) -> Operation:
        """See `lcmulti_jax.derivatives`."""
        return derivatives.operation(implementation, entry.portable, name)

    def opaque(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Nothing traces Python code here."""
        return function

    def devices(self) -> list[str]:
        """Platform and model of each device."""
        return [f"{device.platform}:{device.id} {device.device_kind}" for device in jax.devices()]

    def vjp(
        self, function: Callable[..., Any], arrays: tuple[Any, ...], cotangent: Any
    ) -> tuple[Any, tuple[Any, ...]]:
        """See `Backend.vjp`."""
        value, pull_back = jax.vjp(function, *arrays)
        return value, pull_back(cotangent)

    def jvp(
        self, function: Callable[..., Any], arrays: tuple[Any, ...], tangents: tuple[Any, ...]
    ) -> tuple[Any, Any]:
        """See `Backend.jvp`."""
        value, tangent = jax.jvp(function, arrays, tangents)
        return value, tangent


backend = JaxBackend()
