"""Give the gradient of a kernel the sharding of the kernel.

A partitioner sees no connection between the two. The gradient is computed from the input and the
output's gradient. If neither is split by rows (because a dense layer follows, say), each device
would compute the gradient of all weights.
"""

from __future__ import annotations

from typing import Any

import jax
from jax import Array, lax
from jax.experimental import jet
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from lcmulti_jax.compat import lower_alike

__all__ = ["with_gradient_alike"]

# ``(a, b) -> a``, linear in *a*. With *told*, XLA is told that both are sharded alike.
alike_p = Primitive("local_conv_alike")


def with_gradient_alike(kernel: Array) -> Array:
    """*kernel*; its gradient, if there is one, gets the sharding of *kernel*."""
    if not isinstance(kernel, jax.core.Tracer):
        return kernel
    return alike_p.bind(kernel, lax.stop_gradient(kernel), told=False)


def _jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array], *, told: bool) -> Any:
    (a, b), (tangent, _) = primals, tangents
    if type(tangent) is not ad.Zero:
        tangent = alike_p.bind(tangent, b, told=told)
    return alike_p.bind(a, b, told=told), tangent


def _transpose(cotangent: Array, a: Array, b: Array, *, told: bool) -> Any:
    if type(cotangent) is ad.Zero:
        return cotangent, None
    return alike_p.bind(cotangent, b, told=True), None


def _batch(arrays: tuple[Array, Array], axes: Any, *, told: bool) -> Any:
    size = next(a.shape[i] for a, i in zip(arrays, axes, strict=True) if i is not None)
    a, b = (batching.bdim_at_front(*each, size) for each in zip(arrays, axes, strict=True))
    return alike_p.bind(a, b, told=told), 0


def _taylor(primals: tuple[Array, Array], series: Any, *, told: bool) -> Any:
    a, b = primals
    return alike_p.bind(a, b, told=told), [alike_p.bind(s, b, told=told) for s in series[0]]


def _lower(context: Any, a: Array, b: Array, *, told: bool) -> Any:
    devices = getattr(context.module_context.axis_context, "num_devices", 1)
    if not told or devices == 1:
        return [a]
    return lower_alike(context, a, b)


alike_p.def_impl(lambda a, b, told: a)
alike_p.def_abstract_eval(lambda a, b, told: a)
ad.primitive_jvps[alike_p] = _jvp
ad.primitive_transposes[alike_p] = _transpose
batching.primitive_batchers[alike_p] = _batch
jet.jet_rules[alike_p] = _taylor
mlir.register_lowering(alike_p, _lower)
