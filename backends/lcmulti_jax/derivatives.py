"""The derivative rules, closed once for all implementations.

Requirements this module is written to:

* One primitive for each of the three maps. Each is bilinear, and the transposes of each are the
  other two, so derivatives of any order, in both modes, are made of the three again.
* An implementation only appears when a primitive is lowered: it need not be differentiable.
* What `jax.export` writes to a file runs where no library of ours is loaded: there an
  implementation that is not made of JAX's own operations is composed instead.
* A batch axis of `jax.vmap` joins the batch of the operation, or its positions, where the maps
  allow it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax._src import dispatch
from jax.experimental import jet
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir, xla

from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import (
    DERIVATIVES,
    Implementation,
    Map,
    Operation,
    Problem,
    Resources,
)
from lcmulti_jax.alike import with_gradient_alike
from lcmulti_jax.array_operations import default_device
from lcmulti_jax.composed import composed
from lcmulti_jax.partitioning import ROLES, Placed, partitioned, placed

__all__ = ["operation"]

# Parameters of all three: ``implementation``, ``portable``, ``spec``, ``resources``, ``where``.
forward_p = Primitive("local_conv")
input_grad_p = Primitive("local_conv_input_grad")
kernel_grad_p = Primitive("local_conv_kernel_grad")


PRIMITIVES: dict[Map, Primitive] = {
    "forward": forward_p,
    "input_grad": input_grad_p,
    "kernel_grad": kernel_grad_p,
}


def operation(
    implementation: Implementation,
    portable: bool,
    name: Map = "forward",
    where: Placed | None = None,
) -> Operation:
    """A differentiable map of *implementation*.

    Parameters
    ----------
    implementation : Implementation
    portable : bool
        Whether it is made of JAX's own operations alone.
    name : {"forward", "input_grad", "kernel_grad"}
    where : Placed, optional
        How its arrays are spread over devices; None leaves that to the arrays.
    """
    primitive = PRIMITIVES[name]

    def local_conv(x: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        if where is None:
            kernel = with_gradient_alike(kernel)
        return _bind(
            primitive,
            x,
            kernel,
            implementation=implementation,
            portable=portable,
            spec=spec,
            resources=resources,
            where=where,
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


def _abstract(name: Map, a: Any, b: Any, **params: Any) -> Any:
    spec, where, batch = params["spec"], params["where"], a.shape[0]
    role = ROLES[name][2]
    if where is not None:
        shape = where.shape(role, spec, batch)
    elif role == "kernel":
        shape = spec.kernel_shape
    else:
        shape = (batch, *(spec.output_shape if role == "y" else spec.input_shape))
    return a.update(shape=shape, weak_type=False)


def _lower(name: Map, context: Any, *operands: Any, **params: Any) -> Any:
    """Lower the map as JAX code of its own.

    It runs on one device's part. Were its values still marked as varying over a mesh, loops
    would refuse what they start from and a gradient taken inside would be summed over the mesh.
    """
    where = params.pop("where")
    portable = params.pop("portable")
    exported = context.module_context.lowering_parameters.for_export
    if exported and not portable:
        params["implementation"] = composed
    plain = [
        aval.update(manual_axis_type=type(aval.manual_axis_type)()) for aval in context.avals_in
    ]
    context = context.replace(avals_in=plain)
    if where is not None:
        map_ = placed(name, where, **params)
    elif exported or not _spread(context.module_context.axis_context):
        map_ = partial(getattr(params.pop("implementation"), name), **params)
    else:
        map_ = partitioned(name, **params)
    return mlir.lower_fun(map_, multiple_results=False)(context, *operands)


def _spread(axes: Any) -> bool:
    """Whether a program is one for several devices, and JAX says for which."""
    if hasattr(axes, "num_devices"):
        return axes.num_devices > 1 and axes.device_assignment is not None
    return axes.mesh.size > 1


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
    if _serves_beside(a, size, **params):
        return _beside(primitive, a, b, size, **params)
    return lax.map(lambda pair: _bind(primitive, *pair, **params), (a, b)), 0


def _serves_beside(
    a: Any,
    size: int,
    *,
    implementation: Implementation,
    portable: bool,
    spec: LocalConvSpec,
    resources: Resources,
    where: Placed | None,
) -> bool:
    """Whether the implementation takes operations of kernels of their own as positions of one.

    What is made of JAX's operations is quicker in a loop, whose arrays stay in the cache.
    """
    if portable or where is not None or not isinstance(a.shape[1], int) or not size:
        return False
    problem = Problem(
        spec.repeated(size), a.shape[1], a.dtype.name, default_device(), True, resources
    )
    return (
        implementation.decline(problem) is None
        and implementation.workspace(problem) <= resources.max_workspace
    )


def _beside(primitive: Primitive, a: Any, b: Any, size: int, **params: Any) -> tuple[Any, int]:
    """Operations with kernels of their own are positions of one along an axis more.

    So they are computed at once, and where they are spread over devices, each where it lies.
    """
    spec = params["spec"]
    params["spec"] = spec.repeated(size)
    name = next(name for name, each in PRIMITIVES.items() if each is primitive)
    taps = spec.ndim + 1

    def entering(array: Any, role: str) -> Any:
        return lax.expand_dims(array, [taps]) if role == "kernel" else jnp.moveaxis(array, 0, 1)

    first, second, result = ROLES[name]
    out = _bind(primitive, entering(a, first), entering(b, second), **params)
    if result == "kernel":
        return lax.squeeze(out, [taps]), 0
    return out, 1


class _Bound(NamedTuple):
    """A map as JAX's rules call a primitive."""

    primitive: Primitive

    def bind(self, a: Any, b: Any, **params: Any) -> Any:
        return _bind(self.primitive, a, b, **params)


# Taylor mode: the rule JAX has for each of its own bilinear primitives.
_of_any_product = jet.jet_rules[lax.dot_general_p].func

for _name, _primitive in PRIMITIVES.items():
    # As JAX evaluates its own: compiled as one and once for each geometry, also where
    # `jax.disable_jit` or `jax.debug_nans` evaluate what is compiled operation by operation.
    _primitive.def_impl(partial(xla.apply_primitive, _primitive))
    _primitive.def_abstract_eval(partial(_abstract, _name))
    mlir.register_lowering(_primitive, partial(_lower, _name))
    batching.primitive_batchers[_primitive] = partial(_batch, _primitive)
    # What is partitioned must know its devices. JAX tells them to primitives of this set.
    dispatch.prim_requires_devices_during_lowering.add(_primitive)
    jet.jet_rules[_primitive] = partial(_of_any_product, _Bound(_primitive))


def _derivative(map_: Map, arguments: str) -> Callable[..., Any]:
    """An entry of `DERIVATIVES` as JAX asks for it; the operand to be solved for is not there."""

    def transpose(cotangent: Any, a: Any, b: Any, **params: Any) -> Any:
        operands = {"g": cotangent, "a": a, "b": b}
        first, second = arguments
        return _bind(PRIMITIVES[map_], operands[first], operands[second], **params)

    return transpose


for _map, _pair in DERIVATIVES.items():
    ad.defbilinear(PRIMITIVES[_map], *(_derivative(*each) for each in _pair))
