"""Repeat an array for each sample, with a gradient that is fast on CPUs.

The gradient is a sum over the batch. In some releases (JAX 0.10 is one) XLA's own sum takes thirty
times as long there as the product with a vector of ones that stands for it here, which is fast in
all of them. JAX's own operations would put the two factors of that product in the other order, for
which XLA transposes the batch first.
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
for _primitive, _function in ((repeat_p, _repeat), (total_p, _total)):
    _primitive.def_impl(partial(xla.apply_primitive, _primitive))
    mlir.register_lowering(_primitive, mlir.lower_fun(_function, multiple_results=False))
    jet.jet_rules[_primitive] = partial(_taylor, _primitive)
