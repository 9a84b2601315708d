"""What people use in JAX, channels last. In full precision, which is not the default on GPUs."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax

from lcmulti.bench.contenders import Contender
from lcmulti.bench.workloads import Arrays
from lcmulti.types import Array
from lcmulti.weights.layouts import export_kernel

__all__ = ["conv_local", "eir_einsum", "lax_local"]


def lax_local(arrays: Arrays) -> Contender:
    """`lax.conv_general_dilated_local`."""
    spec = arrays.spec
    letters = "HWDABCEFG"[: spec.ndim]
    dims = (f"N{letters}C", f"{letters}IO", f"N{letters}C")

    def function(x: Array, weights: Any) -> Any:
        return lax.conv_general_dilated_local(
            x, weights, spec.strides, spec.padding, spec.kernel_size, dimension_numbers=dims,
            precision=lax.Precision.HIGHEST,
        )  # fmt: skip

    return Contender(function, arrays.x, export_kernel(arrays.kernel, "flax", spec), arrays.dy)


def conv_local(arrays: Arrays) -> Contender:
    """Flax linen's ``ConvLocal``."""
    from flax import linen

    spec, dtype = arrays.spec, arrays.dtype.name
    layer = linen.ConvLocal(
        spec.filters, spec.kernel_size, strides=spec.strides, padding=spec.padding,
        use_bias=False, dtype=dtype, param_dtype=dtype, precision=lax.Precision.HIGHEST,
    )  # fmt: skip

    def function(x: Array, weights: Any) -> Any:
        return layer.apply({"params": {"kernel": weights}}, x)

    return Contender(function, arrays.x, export_kernel(arrays.kernel, "flax", spec), arrays.dy)


def eir_einsum(arrays: Arrays) -> Contender:
    """EIR's LCL, where windows tile one channel."""
    spec = arrays.spec

    def function(x: Array, weights: Any) -> Any:
        seen = x.reshape(arrays.batch, *spec.output_size, -1)
        return jnp.einsum("nhw,ohw->nho", seen, weights, precision=lax.Precision.HIGHEST)

    return Contender(function, arrays.x, export_kernel(arrays.kernel, "eir", spec), arrays.dy)
