"""What JAX spells differently from release to release, in one spelling.

Nothing else in this package asks for a release of JAX, or for a name that only some have.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import Array, lax
from jax.interpreters import mlir
from jax.sharding import Mesh

__all__ = [
    "as_varying",
    "automatic",
    "def_partition",
    "divided",
    "ffi",
    "lower_alike",
    "mesh_in_use",
    "names_in",
    "of_shape",
    "shard_map",
    "undivided",
    "unmarked",
    "varying",
    "without_mesh",
]

if hasattr(jax, "shard_map"):
    shard_map: Callable[..., Any] = partial(jax.shard_map, check_vma=False)
else:
    from jax.experimental.shard_map import shard_map as _shard_map

    shard_map = partial(_shard_map, check_rep=False)

try:
    from jax import ffi
except ImportError:
    from jax.extend import ffi

_groups = itertools.count(1 << 32)  # JAX counts its own groups from 0


def varying(array: Array) -> frozenset[str]:
    """Mesh axes along which *array* varies under `shard_map`; none if this JAX keeps no marks."""
    if not hasattr(jax, "typeof"):
        return frozenset()
    aval: Any = jax.typeof(array)
    marks: Any = getattr(aval, "manual_axis_type", None)
    axes: frozenset[str] = aval.vma if marks is None else marks.varying
    return axes


def as_varying(array: Array, axes: frozenset[str]) -> Array:
    """*array*, marked as varying along further mesh axes; its gradient is summed over these."""
    names = tuple(sorted(axes, key=str))
    moved: Array = (
        lax.pcast(array, names, to="varying") if hasattr(lax, "pcast") else lax.pvary(array, names)
    )
    return moved


def automatic(mesh: Mesh) -> Mesh:
    """*mesh*, with shardings that are not part of types, whatever the types of its axes."""
    types = getattr(jax.sharding, "AxisType", None)
    if types is None:
        return mesh
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(types.Auto,) * mesh.devices.ndim)


def mesh_in_use() -> Mesh | None:
    """The mesh of `jax.set_mesh`; None if there is none, in a traced function, or in older JAX."""
    try:
        mesh: Mesh = jax.sharding.get_mesh()
    except (AttributeError, ValueError):
        return None
    return None if mesh.empty else mesh


def names_in(path: tuple[Any, ...]) -> list[str]:
    """The attributes, keys and indices of a path in a tree."""
    return [str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", "")))) for key in path]


def unmarked(aval: Any) -> Any:
    """An abstract value that is not marked as varying along mesh axes."""
    if hasattr(aval, "manual_axis_type"):
        return aval.update(manual_axis_type=type(aval.manual_axis_type)())
    return aval.update(vma=frozenset()) if hasattr(aval, "vma") else aval


def divided(array: Any) -> tuple[Any, ...]:
    """Mesh axes that divide each axis of an array, or of a type, where the type says so."""
    sharding = getattr(getattr(array, "aval", array), "sharding", None)
    axes = tuple(getattr(sharding, "spec", None) or ())
    return axes if any(axes) else ()


def of_shape(aval: Any, shape: tuple[Any, ...], axes: tuple[Any, ...] = ()) -> Any:
    """The type of an array of another shape, whose first axes are divided by *axes* of the mesh."""
    sharding = getattr(aval, "sharding", None)
    if sharding is None or sharding.mesh.empty:
        return aval.update(shape=shape, weak_type=False)
    spec = jax.sharding.PartitionSpec(*axes, *(None,) * (len(shape) - len(axes)))
    return aval.update(shape=shape, weak_type=False, sharding=sharding.update(spec=spec))


def _no_mesh() -> Any:
    return jax.sharding.AbstractMesh((), ())


def undivided(aval: Any) -> Any:
    """A type that says nothing of a division."""
    if not divided(aval):
        return aval
    spec = jax.sharding.PartitionSpec(*(None,) * aval.ndim)
    return aval.update(sharding=jax.sharding.NamedSharding(_no_mesh(), spec))


def without_mesh(function: Callable[..., Any]) -> Callable[..., Any]:
    """*function*, traced as where no mesh is in use: its operations have no shardings in types."""
    if not hasattr(jax.sharding, "use_abstract_mesh"):
        return function

    def run(*arrays: Any) -> Any:
        with jax.sharding.use_abstract_mesh(_no_mesh()):
            return function(*arrays)

    return run


def def_partition(run: Any, partition: Any, infer: Any, rule: Callable[[Any], Any]) -> None:
    """`run.def_partition`; ``rule(module)`` gives the rule for Shardy, where there is Shardy."""
    from jax.experimental import custom_partitioning as module

    if hasattr(module, "SdyShardingRule"):
        run.def_partition(partition, infer, sharding_rule=rule(module))
    else:
        run.def_partition(partition, infer)


def lower_alike(context: Any, a: Any, b: Any) -> list[Any]:
    """Lower ``(a, b) -> a``, and tell XLA that both are sharded alike."""
    try:
        from jax.experimental.shard_alike import shard_alike
    except ImportError:  # JAX 0.12
        from jax.extend.mlir.dialects import sdy

        if jax.config.jax_use_shardy_partitioner:
            group = next(_groups)
            sdy.sharding_group(a, group)
            sdy.sharding_group(b, group)
        return [a]
    lowered: list[Any] = mlir.lower_fun(lambda a, b: shard_alike(a, b)[0], multiple_results=False)(
        context, a, b
    )
    return lowered
