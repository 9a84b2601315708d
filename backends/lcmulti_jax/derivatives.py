"""The derivative rules in JAX, written once for all implementations.

Requirements this module is written to:

* There is one primitive for each of the three maps. Each is bilinear, and its transposes are the
  other two. So derivatives of any order, in both modes, consist of the three primitives.
* An implementation is used only when a primitive is lowered, so it need not be differentiable.
* What `jax.export` writes to a file must run without lcmulti. There, an implementation that does
  not consist of JAX's own operations is replaced by ``composed``.
* A batch axis of `jax.vmap` becomes part of the batch of the operation, or of its positions, where
  the maps allow it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax._src import dispatch
from jax.experimental import jet
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir, xla

from lcmulti import plugins
from lcmulti.choosing.steps import with_steps
from lcmulti.errors import UnsupportedError
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import (
    DERIVATIVES,
    Call,
    Implementation,
    Map,
    Operation,
    Problem,
    Resources,
    Steps,
)
from lcmulti_jax.alike import with_gradient_alike
from lcmulti_jax.array_operations import default_device
from lcmulti_jax.compat import (
    as_varying,
    divided,
    of_shape,
    undivided,
    unmarked,
    varying,
    without_mesh,
)
from lcmulti_jax.composed import composed
from lcmulti_jax.partitioning import ROLES, Placed, partitioned, placed
from lcmulti_jax.parts import alone, with_copies

__all__ = ["is_spread", "operation"]

# Parameters of all three: ``implementation``, ``portable``, ``spec``, ``resources``, ``where``.
forward_p = Primitive("local_conv")
input_grad_p = Primitive("local_conv_input_grad")
kernel_grad_p = Primitive("local_conv_kernel_grad")


PRIMITIVES: dict[Map, Primitive] = {
    "forward": forward_p,
    "input_grad": input_grad_p,
    "kernel_grad": kernel_grad_p,
}


@dataclass(frozen=True)
class ClosedMap:
    """One differentiable map of an implementation; a `lcmulti.plugins.contract.WholeOperation`."""

    implementation: Implementation
    portable: bool
    name: Map
    where: Placed | None

    def __call__(self, x: Array, kernel: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        """See `lcmulti.plugins.contract.Operation`; *spec* may have any padding mode."""
        if self.where is None:
            kernel = with_gradient_alike(kernel)
        return _bind(
            PRIMITIVES[self.name],
            x,
            kernel,
            implementation=self.implementation,
            portable=self.portable,
            spec=spec,
            resources=resources,
            where=self.where,
        )

    def whole(self, problem: Problem, steps: Steps) -> Call:
        """See `lcmulti.plugins.contract.WholeOperation`. Padding with copies is part of the map.

        So where rows are divided over devices, each device copies the rows that it has.
        """
        if steps.given and steps.padding_indices:
            problem = problem._replace(spec=with_copies(steps.given))
        apart = Steps(steps.channels_first)
        return with_steps(plugins.load_backend("jax"), self.__call__, problem, apart)


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
        Whether it consists of JAX's own operations.
    name : {"forward", "input_grad", "kernel_grad"}
    where : Placed, optional
        How its arrays are divided over devices; None: as the arrays are.
    """
    return ClosedMap(implementation, portable, name, where)


def _bind(primitive: Primitive, a: Array, b: Array, **params: Any) -> Any:
    """Under `jax.shard_map`, operands must vary along the same mesh axes, as for JAX's primitives.

    The operation that makes an operand vary sums its gradient over these axes.
    """
    own = [varying(each) for each in (a, b)]
    if own[0] != own[1]:
        a, b = as_varying(a, own[1] - own[0]), as_varying(b, own[0] - own[1])
    return primitive.bind(a, b, **params)


def _abstract(name: Map, a: Array, b: Array, **params: Any) -> Any:
    spec, where, batch = params["spec"], params["where"], a.shape[0]
    role = ROLES[name][2]
    if where is not None:
        shape = where.shape(role, spec, batch)
    elif role == "kernel":
        shape = spec.kernel_shape
    else:
        shape = (batch, *(spec.output_shape if role == "y" else spec.input_shape))
    return of_shape(a, shape, _divided_batch(name, divided(a), divided(b)))


def _divided_batch(name: Map, of_a: tuple[Any, ...], of_b: tuple[Any, ...]) -> tuple[Any, ...]:
    """How the result is divided, where shardings are part of types: as the batch, if at all."""
    batch, *others = of_a or (None,)
    if name == "kernel_grad":
        other_batch, *more = of_b or (None,)
        others += [*more, *({batch, other_batch} - {batch})]
    else:
        others += of_b
    if any(others):
        raise UnsupportedError(
            "on a mesh of explicit axes, only the batch may be divided; call the layer within "
            "jax.sharding.auto_axes, which leaves other divisions to the compiler"
        )
    return () if name == "kernel_grad" else (batch,)


def _lower(name: Map, context: Any, *operands: Any, **params: Any) -> Any:
    """Lower a map as JAX code.

    The code runs on one device's part, so its values must not be marked as varying over a mesh:
    loops would refuse their initial values, and gradients inside would be summed over the mesh.
    """
    where = params.pop("where")
    portable = params.pop("portable")
    exported = context.module_context.lowering_parameters.for_export
    if exported and not portable:
        params["implementation"] = composed
    if where is not None:
        map_ = placed(name, where, **params)
    elif exported or not is_spread(context.module_context.axis_context):
        map_ = alone(name, **params)
    else:
        map_ = partitioned(name, **params)
    if any(map(divided, context.avals_in)):
        map_ = without_mesh(map_)
    context = context.replace(avals_in=[undivided(unmarked(aval)) for aval in context.avals_in])
    return mlir.lower_fun(map_, multiple_results=False)(context, *operands)


def is_spread(axes: Any) -> bool:
    """Whether a program is for several devices, and JAX tells for which."""
    if hasattr(axes, "num_devices"):
        return axes.num_devices > 1 and axes.device_assignment is not None
    return axes.mesh.size > 1


def _batch(
    primitive: Primitive,
    arrays: tuple[Array, Array],
    axes: tuple[int | None, int | None],
    **params: Any,
) -> tuple[Any, int]:
    (a, b), (axis_a, axis_b) = arrays, axes
    # The operand has samples: the new axis adds to them.
    if axis_b is None and primitive is not kernel_grad_p:
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
    a: Array,
    size: int,
    *,
    implementation: Implementation,
    portable: bool,
    spec: LocalConvSpec,
    resources: Resources,
    where: Placed | None,
) -> bool:
    """Whether several operations with different kernels become positions of a single one.

    Implementations made of JAX's operations are faster in a loop, whose arrays stay in the cache.
    """
    if portable or where is not None or not isinstance(a.shape[1], int) or not size:
        return False
    problem = Problem(
        spec.repeated(size).computed(), a.shape[1], a.dtype.name, default_device(), True, resources
    )
    return (
        implementation.decline(problem) is None
        and implementation.workspace(problem) <= resources.max_workspace
    )


def _beside(primitive: Primitive, a: Array, b: Array, size: int, **params: Any) -> tuple[Any, int]:
    """Operations with different kernels become positions of a single one, along a new axis.

    So they are computed at once; if they are divided over devices, each where it is.
    """
    spec = params["spec"]
    params["spec"] = spec.repeated(size)
    name = next(name for name, each in PRIMITIVES.items() if each is primitive)
    taps = spec.ndim + 1

    def entering(array: Array, role: str) -> Any:
        return lax.expand_dims(array, [taps]) if role == "kernel" else jnp.moveaxis(array, 0, 1)

    first, second, result = ROLES[name]
    out = _bind(primitive, entering(a, first), entering(b, second), **params)
    if result == "kernel":
        return lax.squeeze(out, [taps]), 0
    return out, 1


class _Bound(NamedTuple):
    """A map with the interface that JAX's rules expect of a primitive."""

    primitive: Primitive

    def bind(self, a: Array, b: Array, **params: Any) -> Any:
        return _bind(self.primitive, a, b, **params)


# Taylor mode: the rule that JAX uses for its own bilinear primitives.
_of_any_product = jet.jet_rules[lax.dot_general_p].func

for _name, _primitive in PRIMITIVES.items():
    # As JAX evaluates its own primitives: compiled as a whole, once for each geometry, even where
    # `jax.disable_jit` or `jax.debug_nans` evaluate compiled functions operation by operation.
    _primitive.def_impl(partial(xla.apply_primitive, _primitive))
    _primitive.def_abstract_eval(partial(_abstract, _name))
    mlir.register_lowering(_primitive, partial(_lower, _name))
    batching.primitive_batchers[_primitive] = partial(_batch, _primitive)
    # Partitioning must know the devices. JAX tells them to the primitives in this set.
    dispatch.prim_requires_devices_during_lowering.add(_primitive)
    jet.jet_rules[_primitive] = partial(_of_any_product, _Bound(_primitive))


def _derivative(map_: Map, arguments: str) -> Callable[..., Any]:
    """An entry of `DERIVATIVES` as JAX asks for it; the operand to be solved for is not there."""

    def transpose(cotangent: Any, a: Any, b: Any, **params: Any) -> Any:
        operands = {"g": cotangent, "a": a, "b": b}
        return _bind(PRIMITIVES[map_], operands[arguments[0]], operands[arguments[1]], **params)

    return transpose


for _map, _pair in DERIVATIVES.items():
    ad.defbilinear(PRIMITIVES[_map], *(_derivative(*each) for each in _pair))
