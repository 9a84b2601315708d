"""Decide which device computes what, for arrays divided over the devices of a mesh.

There are two ways. Either the shardings of the arrays decide: XLA's partitioner, GSPMD or Shardy,
asks this module what to do with them. By these rules,

* positions are divided like the kernel, else like ``y``, else like ``x``, so that a kernel never
  travels;
* samples are divided like ``y`` and ``x``;
* filters and channels, or groups of both, are divided like the kernel, else like ``y`` or ``x``.

Or the caller decides, with `lcmulti_jax.sharded`, and `jax.shard_map` runs the parts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from jax import Array, ShapeDtypeStruct
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Implementation, Map, Resources
from lcmulti_jax.compat import def_partition, shard_map, without_mesh
from lcmulti_jax.halos import Cut, Names
from lcmulti_jax.parts import Axes, Part, Split, alone, size

__all__ = ["Placed", "partitioned", "placed"]

ROLES: dict[str, tuple[str, str, str]] = {
    "forward": ("x", "kernel", "y"),
    "input_grad": ("y", "kernel", "x"),
    "kernel_grad": ("x", "y", "kernel"),
}
"""The roles of each map's operands and of its result."""


class Placed(NamedTuple):
    """A division that the caller chose. Arrays are padded so that all devices have equal parts."""

    mesh: Mesh
    split: Split

    def shape(self, role: str, spec: LocalConvSpec, batch: int) -> tuple[int, ...]:
        """Shape of ``x``, ``kernel`` or ``y`` with its padding."""
        cuts = [
            Cut(spec, axis, names, size(names, self.mesh))
            for axis, names in enumerate(self.split.positions)
        ]
        if role == "x":
            return (batch, *(cut.inputs * cut.devices for cut in cuts), spec.in_channels)
        outputs = tuple(cut.outputs * cut.devices for cut in cuts)
        if role == "y":
            return (batch, *outputs, spec.filters)
        own = (1 if axis in spec.shared_axes else n for axis, n in enumerate(outputs))
        return (*own, *spec.kernel_shape[spec.ndim :])

    def sharding(self, role: str, spec: LocalConvSpec) -> NamedSharding:
        """The sharding of ``x``, ``kernel`` or ``y``."""
        return _sharding(self.mesh, self.split.of(role, spec))


def placed(
    name: Map,
    where: Placed,
    implementation: Implementation,
    spec: LocalConvSpec,
    resources: Resources,
) -> Callable[[Any, Any], Any]:
    """A map of arrays that are divided as the caller says."""
    part = Part(spec, where.split, where.mesh, where.split.of("x", spec), implementation, resources)
    *operands, result = (where.sharding(role, spec).spec for role in ROLES[name])
    run: Callable[[Any, Any], Any] = shard_map(
        getattr(part, name), mesh=where.mesh, in_specs=tuple(operands), out_specs=result
    )
    return run


def partitioned(
    name: Map, implementation: Implementation, spec: LocalConvSpec, resources: Resources
) -> Callable[[Any, Any], Any]:
    """A map that is computed where its arrays are, for use within a compiled program."""

    @custom_partitioning
    def run(a: Array, b: Array) -> Any:
        return alone(name, implementation, spec, resources)(a, b)

    roles = ROLES[name]

    def split_of(mesh: Mesh, arrays: dict[str, ShapeDtypeStruct]) -> Split:
        known = {role: _axes(each.sharding, len(each.shape), mesh) for role, each in arrays.items()}
        return _split(spec, arrays[roles[0]].shape[0], known, mesh)

    def infer(mesh: Mesh, operands: Any, result: Any) -> Any:
        split = split_of(mesh, dict(zip(roles, operands, strict=False)))
        return _sharding(mesh, split.of(roles[2], spec))

    def partition(mesh: Mesh, operands: Any, result: Any) -> Any:
        arrays = dict(zip(roles, (*operands, result), strict=True))
        split = split_of(mesh, arrays)
        axes = {role: split.of(role, spec) for role in roles}
        if "x" in roles[:2]:
            axes["x"] = _as_it_comes(axes["x"], _axes(arrays["x"].sharding, spec.ndim + 2, mesh))
        part = Part(spec, split, mesh, axes.get("x", ()), implementation, resources)
        *of_operands, of_result = (_sharding(mesh, axes[role]) for role in roles)
        return mesh, without_mesh(getattr(part, name)), of_result, tuple(of_operands)

    def_partition(run, partition, infer, partial(_rule, name, spec))
    return run


def _rule(name: Map, spec: LocalConvSpec, shardy: Any) -> Any:
    """The rule for Shardy: which axes are divided alike."""
    sizes: dict[str, int] = {}
    inputs: Any = "channels"
    outputs: Any = "filters"
    if spec.groups > 1:
        sizes["groups"] = spec.groups
        inputs = outputs = "groups"
        if spec.in_channels > spec.groups:
            inputs = shardy.CompoundFactor("groups", "channels")
        if spec.filters > spec.groups:
            outputs = shardy.CompoundFactor("groups", "filters")
            sizes["filters"] = spec.filters // spec.groups
        if "groups" in (inputs, outputs):  # then its size is an ordinary int
            del sizes["groups"]
    positions = [f"position{axis}" for axis in range(spec.ndim)]
    own = [f"all{a}" if a in spec.shared_axes else each for a, each in enumerate(positions)]
    taps = [f"tap{axis}" for axis in range(spec.ndim)]
    mappings = {
        "x": shardy.ArrayMapping("samples", *positions, inputs),
        "y": shardy.ArrayMapping("samples", *positions, outputs),
        "kernel": shardy.ArrayMapping(*own, *taps, "channels", outputs),
    }
    *operands, result = (mappings[role] for role in ROLES[name])
    return shardy.SdyShardingRule(tuple(operands), (result,), **sizes)


def _axes(sharding: Any, rank: int, mesh: Mesh) -> Axes:
    """The mesh axes of each axis of an array, without those with one device."""
    if not isinstance(sharding, NamedSharding):
        return ((),) * rank
    entries = (*sharding.spec, *(None,) * (rank - len(sharding.spec)))
    names = ((each,) if isinstance(each, str) else tuple(each or ()) for each in entries)
    return tuple(tuple(name for name in each if mesh.shape[name] > 1) for each in names)


def _sharding(mesh: Mesh, axes: Axes) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(*(each or None for each in axes)))


def _split(spec: LocalConvSpec, batch: int, known: dict[str, Axes], mesh: Mesh) -> Split:
    """Decide from the known shardings; each axis of the mesh divides at most one thing."""
    claimed: dict[Any, Names] = {}
    used: set[str] = set()

    def claim(what: Any, names: Names, count: int | None = None) -> None:
        free = tuple(name for name in names if name not in used)
        if what in claimed or not free or (count and count % size(free, mesh)):
            return
        claimed[what] = free
        used.update(free)

    grouped = spec.groups > 1
    filters = spec.groups if grouped else spec.filters
    for role in ("kernel", "y", "x"):
        if role not in known:
            continue
        axes = known[role]
        positions = axes[: spec.ndim] if role == "kernel" else axes[1 : spec.ndim + 1]
        for axis, names in enumerate(positions):
            if spec.output_size[axis] > 1:
                claim(axis, names)
        if role != "kernel":
            claim("samples", axes[0], batch)
        if role != "x":
            claim("filters", axes[-1], filters)
        if role != "y" and not grouped:
            claim("channels", axes[-2 if role == "kernel" else -1], spec.in_channels)
        if role == "x" and grouped:
            claim("filters", axes[-1], filters)
    return Split(
        claimed.get("samples", ()),
        tuple(claimed.get(axis, ()) for axis in range(spec.ndim)),
        claimed.get("filters", ()),
        claimed.get("filters" if grouped else "channels", ()),
    )


def _as_it_comes(wanted: Axes, given: Axes) -> Axes:
    """The division of ``x``: whole along positions if it is whole already, else like positions."""
    elsewhere = {name for names in given for name in names}
    return tuple(
        () if 0 < axis < len(wanted) - 1 and not elsewhere & {*names} else names
        for axis, names in enumerate(wanted)
    )
