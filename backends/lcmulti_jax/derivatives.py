"""The derivative rules, closed once for all implementations.

Requirements this module is written to:

* One primitive for each of the three maps. Each is bilinear, and the transposes of each are the
  other two, so derivatives of any order, in both modes, are made of the three again.
* An implementation only appears when a primitive is lowered: it need not be differentiable.
* What `jax.export` writes to a file runs where no library of ours is loaded: there an
  implementation that is not made of JAX's own operations is composed instead.
* A batch axis of `jax.vmap` joins the batch of the operation where the maps allow it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Implementation, Map, Operation, Resources
from lcmulti_jax.composed import composed

__all__ = ["operation"]

# Parameters of all three: ``implementation``, ``portable``, ``spec`` and ``resources``.
forward_p = Primitive("local_conv")
input_grad_p = Primitive("local_conv_input_grad")
kernel_grad_p = Primitive("local_conv_kernel_grad")


PRIMITIVES = {"forward": forward_p, "input_grad": input_grad_p, "kernel_grad": kernel_grad_p}


def operation(implementation: Implementation, portable: bool, name: Map = "forward") -> Operation:
    """A differentiable map of *implementation*.

    *portable* tells whether it is made of JAX's own operations alone.
    """
    primitive = PRIMITIVES[name]

    def local_conv(x: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        return _bind(
            primitive,
            x,
            kernel,
            implementation=implementation,
            portable=portable,
            spec=spec,
            resources=resources,
        )

    return local_conv


def _bind(primitive: Primitive, a: Any, b: Any, **params: Any) -> Any:
    """Under `jax.shard_map`, operands must vary along the same mesh axes, as JAX's own do.

    What made one vary sums its gradient over those axes.
    """
    varying = [jax.typeof(each).manual_axis_type.varying for each in (a, b)]
    if varying[0] != varying[1]:
        every = varying[0] | varying[1]
        a, b = (
            lax.pcast(each, tuple(sorted(every - own, key=str)), to="varying")
            for each, own in zip((a, b), varying, strict=True)
        )
    return primitive.bind(a, b, **params)


def _shape(primitive: Primitive, a: Any, spec: LocalConvSpec) -> tuple[Any, ...]:
    if primitive is kernel_grad_p:
        return spec.kernel_shape
    return (a.shape[0], *(spec.output_shape if primitive is forward_p else spec.input_shape))


def _abstract(primitive: Primitive, a: Any, b: Any, **params: Any) -> Any:
    return a.update(shape=_shape(primitive, a, params["spec"]), weak_type=False)


def _compute(
    name: str,
    a: Any,
    b: Any,
    *,
    implementation: Implementation,
    portable: bool,
    spec: LocalConvSpec,
    resources: Resources,
) -> Any:
    return getattr(implementation, name)(a, b, spec, resources)


def _lower(map_: Any, context: Any, *operands: Any, **params: Any) -> Any:
    """Lower the map as JAX code of its own.

    It runs on one device's part. Were its values still marked as varying over a mesh, loops
    would refuse what they start from and a gradient taken inside would be summed over the mesh.
    """
    if context.module_context.lowering_parameters.for_export and not params["portable"]:
        params["implementation"] = composed
    plain = [
        aval.update(manual_axis_type=type(aval.manual_axis_type)()) for aval in context.avals_in
    ]
    lower = mlir.lower_fun(map_, multiple_results=False)
    return lower(context.replace(avals_in=plain), *operands, **params)


def _batch(
    primitive: Primitive,
    arrays: tuple[Any, Any],
    axes: tuple[int | None, int | None],
    **params: Any,
) -> tuple[Any, int]:
    (a, b), (axis_a, axis_b) = arrays, axes
    if axis_b is None and primitive is not kernel_grad_p:  # the map is over samples: these are more
        a = batching.bdim_at_front(a, axis_a, a.shape[axis_a])
        out = _bind(primitive, a.reshape(-1, *a.shape[2:]), b, **params)
        return out.reshape(*a.shape[:2], *out.shape[1:]), 0
    size = a.shape[axis_a] if axis_a is not None else b.shape[axis_b]
    a, b = (
        batching.bdim_at_front(each, axis, size) for each, axis in zip(arrays, axes, strict=True)
    )
    return lax.map(lambda pair: _bind(primitive, *pair, **params), (a, b)), 0


def _eagerly(primitive: Primitive) -> Any:
    """Outside of any transform, compiled as one and once for each geometry."""
    names = ("implementation", "portable", "spec", "resources")
    return jax.jit(primitive.bind, static_argnames=names)


for _name, _primitive in PRIMITIVES.items():
    _map = partial(_compute, _name)
    _primitive.def_impl(_eagerly(_primitive))
    _primitive.def_abstract_eval(partial(_abstract, _primitive))
    mlir.register_lowering(_primitive, partial(_lower, _map))
    batching.primitive_batchers[_primitive] = partial(_batch, _primitive)

# ``ct`` is the cotangent of the output; the operand that is being solved for is not there.
ad.defbilinear(
    forward_p,
    lambda ct, x, kernel, **params: _bind(input_grad_p, ct, kernel, **params),
    lambda ct, x, kernel, **params: _bind(kernel_grad_p, x, ct, **params),
)
ad.defbilinear(
    input_grad_p,
    lambda ct, dy, kernel, **params: _bind(forward_p, ct, kernel, **params),
    lambda ct, dy, kernel, **params: _bind(kernel_grad_p, ct, dy, **params),
)
ad.defbilinear(
    kernel_grad_p,
    lambda ct, x, dy, **params: _bind(input_grad_p, dy, ct, **params),
    lambda ct, x, dy, **params: _bind(forward_p, x, ct, **params),
)
