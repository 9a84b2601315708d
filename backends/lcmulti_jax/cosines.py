"""Cosines of neighbouring filters, in the maps of an implementation, and their gradient.

A primitive is lowered to the maps, or to JAX's own operations where the maps cannot serve: in what
`jax.export` writes, over several devices, and on other platforms than the CPU. Its derivatives are
those of JAX's operations.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir, xla

from lcmulti import plugins
from lcmulti.operations.neighbours import CosineMaps, Link, composed
from lcmulti.plugins.contract import Resources
from lcmulti_jax.compat import unmarked
from lcmulti_jax.derivatives import is_spread

__all__ = ["neighbour_cosines"]

cosines_p = Primitive("neighbour_cosines")
"""``(kernel, bias) -> value,``, or ``-> value, kernel_gradient, bias_gradient`` with *slopes*."""
cosines_p.multiple_results = True


@partial(jax.jit, static_argnames=("maps", "links", "resources"))
def neighbour_cosines(
    maps: CosineMaps,
    kernel: Array,
    bias: Array | None,
    links: tuple[Link, ...],
    resources: Resources,
) -> Array:
    """See `lcmulti.operations.neighbours.CosineMaps`."""
    own = *kernel.shape[:2], kernel.shape[-1]
    zeros = jnp.zeros(own, kernel.dtype)
    full = zeros if bias is None else jnp.broadcast_to(bias, own)
    return _value((maps, links, resources), kernel, full)


Call = tuple[CosineMaps, tuple[Link, ...], Resources]


def _bind(call: Call, kernel: Array, bias: Array, slopes: bool) -> list[Array]:
    maps, links, resources = call
    found: list[Array] = cosines_p.bind(
        kernel, bias, maps=maps, links=links, resources=resources, slopes=slopes
    )
    return found


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _value(call: Call, kernel: Array, bias: Array) -> Array:
    return _bind(call, kernel, bias, slopes=False)[0]


@_value.defjvp
def _value_jvp(call: Call, primals: Any, tangents: Any) -> tuple[Array, Array]:
    value, *slopes = _value_and_slopes(call, *primals)
    return value, sum(
        (jnp.sum(slope * tangent) for slope, tangent in zip(slopes, tangents, strict=True)),
        jnp.zeros_like(value),
    )


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _value_and_slopes(call: Call, kernel: Array, bias: Array) -> tuple[Array, ...]:
    return tuple(_bind(call, kernel, bias, slopes=True))


@_value_and_slopes.defjvp
def _of_slopes(call: Call, primals: Any, tangents: Any) -> Any:
    _, links, _ = call
    return jax.jvp(partial(_plain, links, slopes=True), primals, tangents)


def _plain(links: tuple[Link, ...], kernel: Array, bias: Array, slopes: bool) -> tuple[Array, ...]:
    """The same in JAX's own operations."""

    def value(kernel: Array, bias: Array) -> Any:
        return composed(plugins.load_backend("jax"), kernel, bias, links)

    if not slopes:
        return (value(kernel, bias),)
    found, gradients = jax.value_and_grad(value, (0, 1))(kernel, bias)
    return found, *gradients


def _fast(call: Call, kernel: Array, bias: Array, slopes: bool) -> tuple[Array, ...]:
    maps, links, resources = call
    sums = maps.cosine_sums(kernel, bias, links, resources)
    value = sums[3].sum() / 2
    if not slopes:
        return (value,)
    arrays = kernel, bias[..., None, :]
    of_kernel, of_bias = (maps.cosine_slopes(each, sums, links, resources) for each in arrays)
    return value, of_kernel, of_bias[..., 0, :]


def _abstract(kernel: Any, bias: Any, *, slopes: bool, **_: Any) -> list[Any]:
    value = kernel.update(shape=(), weak_type=False)
    return [value, kernel, bias] if slopes else [value]


def _lower(
    fast: bool, context: Any, *operands: Any, maps: Any, links: Any, resources: Any, slopes: bool
) -> Any:
    module = context.module_context
    if not fast or module.lowering_parameters.for_export or is_spread(module.axis_context):
        function = partial(_plain, links, slopes=slopes)
    else:
        function = partial(_fast, (maps, links, resources), slopes=slopes)
    context = context.replace(avals_in=[unmarked(aval) for aval in context.avals_in])
    return mlir.lower_fun(function, multiple_results=True)(context, *operands)


def _batch(arrays: Any, axes: Any, **params: Any) -> tuple[list[Array], list[int]]:
    size = next(a.shape[i] for a, i in zip(arrays, axes, strict=True) if i is not None)
    fronted = [batching.bdim_at_front(a, i, size) for a, i in zip(arrays, axes, strict=True)]
    found = lax.map(lambda each: cosines_p.bind(*each, **params), tuple(fronted))
    return found, [0] * len(found)


cosines_p.def_impl(partial(xla.apply_primitive, cosines_p))
cosines_p.def_abstract_eval(_abstract)
mlir.register_lowering(cosines_p, partial(_lower, False))
mlir.register_lowering(cosines_p, partial(_lower, True), platform="cpu")
batching.primitive_batchers[cosines_p] = _batch
