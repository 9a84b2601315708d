"""Repeat an array for each sample, with a gradient that is fast on CPUs.

The gradient is a sum over the batch. In some releases (JAX 0.10 is one) XLA's own sum takes thirty
times as long there as adding one half of the batch to the other until one sample is left. Where the
batch may be divided over devices, slices of it would travel; there, the sum is a product with ones,
which the threads of XLA's matrix products compute, at the cost of what runs beside them. JAX's own
operations would put the two factors of that product in the other order, for which XLA transposes
the batch first.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import jet
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir, xla

from lcmulti_jax.compat import of_shape
from lcmulti_jax.derivatives import is_spread

__all__ = ["repeated"]

# ``(*shape) -> (samples, *shape)``, and its transpose ``(samples, *shape) -> (*shape)``.
repeat_p = Primitive("local_conv_repeat")
total_p = Primitive("local_conv_total")


def repeated(array: Array, samples: Any) -> Array:
    """*array* as ``(samples, *array.shape)``."""
    result: Array = repeat_p.bind(array, samples=samples)
    return result


def _repeat(array: Array, *, samples: Any) -> Array:
    return jnp.broadcast_to(array, (samples, *array.shape))


def _total(array: Array) -> Array:
    ones = jnp.ones(array.shape[0], array.dtype)
    return jnp.tensordot(ones, array, 1, precision=lax.Precision.HIGHEST)


def _total_in_halves(array: Array) -> Array:
    odd = jnp.zeros(array.shape[1:], array.dtype)
    while array.shape[0] > 1:
        half = array.shape[0] // 2
        if array.shape[0] % 2:
            odd = odd + array[-1]
        array = array[:half] + array[half : 2 * half]
    return odd + array[0] if array.shape[0] else odd


def _lower_total(context: Any, array: Any) -> Any:
    module, (aval,) = context.module_context, context.avals_in
    alone = not module.lowering_parameters.for_export and not is_spread(module.axis_context)
    function = _total_in_halves if alone and isinstance(aval.shape[0], int) else _total
    return mlir.lower_fun(function, multiple_results=False)(context, array)


def _batch_repeat(arrays: tuple[Array], axes: tuple[int], *, samples: Any) -> tuple[Array, int]:
    return repeated(jnp.moveaxis(arrays[0], axes[0], 0), samples), 1


def _batch_total(arrays: tuple[Array], axes: tuple[int]) -> tuple[Array, int]:
    return total_p.bind(jnp.moveaxis(arrays[0], axes[0], 1)), 0


def _taylor(primitive: Primitive, primals: Any, series: Any, **params: Any) -> Any:
    """A linear map of each coefficient."""
    return (
        primitive.bind(*primals, **params),
        [primitive.bind(each, **params) for each in series[0]],
    )


repeat_p.def_abstract_eval(lambda a, *, samples: of_shape(a, (samples, *a.shape)))
total_p.def_abstract_eval(lambda a: of_shape(a, a.shape[1:]))
ad.deflinear2(repeat_p, lambda above, _, *, samples: [total_p.bind(above)])
ad.deflinear2(total_p, lambda above, a: [repeated(above, a.aval.shape[0])])
batching.primitive_batchers[repeat_p] = _batch_repeat
batching.primitive_batchers[total_p] = _batch_total
mlir.register_lowering(repeat_p, mlir.lower_fun(_repeat, multiple_results=False))
mlir.register_lowering(total_p, _lower_total)
for _primitive in (repeat_p, total_p):
    _primitive.def_impl(partial(xla.apply_primitive, _primitive))
    jet.jet_rules[_primitive] = partial(_taylor, _primitive)
