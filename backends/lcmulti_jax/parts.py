"""One device's part of each map.

Every map is linear in two of ``x``, ``kernel`` and ``y`` and gives the third. Axes of a mesh may
divide the axes of these arrays:

* **Positions**: each device computes its positions with its kernels. It needs a few inputs of its
  neighbours (`lcmulti_jax.halos`), and sends the gradients of these back.
* **Samples**: kernel gradients are summed over devices.
* **Filters and channels**: outputs are summed over devices if channels are divided, and input
  gradients if filters are. If there are groups, these are divided, and nothing is summed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh

from lcmulti.dtypes import DTYPES
from lcmulti.geometry.fields import replace_fields
from lcmulti.geometry.padding import NUMPY_MODES
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Implementation, Map, Problem, Resources
from lcmulti_jax import halos
from lcmulti_jax.array_operations import default_device, widen
from lcmulti_jax.blocked import blocked
from lcmulti_jax.halos import Cut, Names

__all__ = ["Axes", "Part", "Split", "alone", "size", "with_copies"]

Axes = tuple[Names, ...]
"""The mesh axes that divide each axis of an array."""


def size(names: Names, mesh: Mesh | None) -> int:
    """Number of devices along some axes of a mesh."""
    return 1 if mesh is None else prod(mesh.shape[name] for name in names)


class Split(NamedTuple):
    """The axes of a mesh that divide positions, samples, channels, filters and groups."""

    samples: Names
    positions: Axes
    filters: Names
    channels: Names

    def of(self, role: str, spec: LocalConvSpec) -> Axes:
        """The mesh axes that divide each axis of one array."""
        if role == "kernel":
            own = (
                () if axis in spec.shared_axes else names
                for axis, names in enumerate(self.positions)
            )
            channels = () if spec.groups > 1 else self.channels
            return (*own, *((),) * spec.ndim, channels, self.filters)
        return (self.samples, *self.positions, self.filters if role == "y" else self.channels)


def with_copies(spec: LocalConvSpec) -> LocalConvSpec:
    """*spec* as by `LocalConvSpec.computed`, but with its padding mode: devices pad their parts."""
    return replace_fields(
        spec.computed(),
        input_size=spec.input_size,
        padding=spec.padding,
        padding_mode=spec.padding_mode,
    )


class Part(NamedTuple):
    """One device's part of each map, for use where mesh axes are named, as in `jax.shard_map`.

    Parameters
    ----------
    spec : LocalConvSpec
        The geometry of the whole, as `with_copies` returns it.
    split : Split
    mesh : Mesh or None
        None for one device, where nothing is divided.
    x : Axes
        The division of ``x``: without the axes of positions along which every device has all of it.
    implementation : Implementation
    resources : Resources
    """

    spec: LocalConvSpec
    split: Split
    mesh: Mesh | None
    x: Axes
    implementation: Implementation
    resources: Resources

    def forward(self, x: Array, kernel: Array) -> Array:
        """``y`` of this device's positions."""
        y = self._run("forward", self._seen(x), kernel, wide=bool(self._summed_channels))
        return self._sum(y, self._summed_channels, x)

    def input_grad(self, dy: Array, kernel: Array) -> Array:
        """``dx`` of the inputs that this device holds, from all devices whose windows read them."""
        summed = self.split.filters if self.spec.groups == 1 else ()
        dy, kernel = self._real(dy, "y"), self._real(kernel, "kernel")
        dx = self._run("input_grad", dy, kernel, wide=bool(summed))
        if any(self.split.positions) and not summed:
            dx = self._with_wide_borders(dx, dy, kernel)
        if self.spec.padding_mode != "zeros":  # copies of a row are summed
            dx = widen(dx)
        held = [dx.shape[0], *self.spec.input_size, dx.shape[-1]]
        for cut in self._cuts():
            held[cut.axis + 1] = cut.inputs
        like = jax.ShapeDtypeStruct(tuple(held), dx.dtype)
        (dx,) = jax.linear_transpose(lambda x: self._seen(x, held=True), like)(dx)
        return self._sum(dx, summed, dy)

    def kernel_grad(self, x: Array, dy: Array) -> Array:
        """``dkernel`` of this device's positions, from all samples."""
        shared = (self.split.positions[axis] for axis in self.spec.shared_axes)
        summed = self.split.samples + sum(shared, ())
        x, dy = self._seen(x), self._real(dy, "y")
        return self._sum(self._run("kernel_grad", x, dy, wide=bool(summed)), summed, x)

    @property
    def _summed_channels(self) -> Names:
        return self.split.channels if self.spec.groups == 1 else ()

    def _cuts(self) -> Iterable[Cut]:
        """The divided spatial axes."""
        for axis, names in enumerate(self.split.positions):
            if names:
                yield Cut(self.spec, axis, names, size(names, self.mesh))

    def _seen(self, x: Array, held: bool = False) -> Array:
        for cut in self._cuts():
            x = halos.seen(x, cut, whole=not (held or self.x[cut.axis + 1]))
        if self.spec.padding_mode == "zeros":
            return x
        axes = zip(self.split.positions, self.spec.padding, strict=True)
        widths = [(0, 0) if names else pair for names, pair in axes]
        return jnp.pad(x, [(0, 0), *widths, (0, 0)], NUMPY_MODES[self.spec.padding_mode])

    def _real(self, array: Array, role: str) -> Array:
        """Set elements beyond the array to zero, because their memory is undefined."""
        shape = {
            "y": (None, *self.spec.output_size, None),
            "kernel": (*self.spec.positions_shape, *(None,) * (self.spec.ndim + 2)),
        }[role]
        for axis, names in enumerate(self.split.of(role, self.spec)):
            length = shape[axis]
            if not names or length is None:
                continue
            parts = size(names, self.mesh)
            if length % parts:
                places = lax.broadcasted_iota("int32", array.shape, axis)
                left = length - lax.axis_index(names) * array.shape[axis]
                array = jnp.where(places < left, array, jnp.zeros((), array.dtype))
        return array

    def local(self) -> LocalConvSpec:
        """The operation on a device's part; along divided axes, its input includes the padding."""
        spec = self.spec.computed()
        filters = size(self.split.filters, self.mesh)
        channels = size(self.split.channels, self.mesh)
        spec = replace_fields(
            spec,
            filters=spec.filters // filters,
            in_channels=spec.in_channels // channels,
            groups=spec.groups // filters if spec.groups > 1 else 1,
        )
        for cut in self._cuts():
            spec = _with_size(spec, cut.axis, cut.window, cut.outputs)
        return spec

    def _run(
        self, name: str, a: Array, b: Array, wide: bool, spec: LocalConvSpec | None = None
    ) -> Array:
        """A map on a device's part; with *wide*, half types give float32 results."""
        if wide:
            a, b = widen(a), widen(b)
        spec = spec or self.local()
        return getattr(self._serving(spec, a), name)(a, b, spec, self.resources)

    def _serving(self, spec: LocalConvSpec, array: Array) -> Implementation:
        """The implementation, or one that serves every call if it declines the part."""
        dtype = array.dtype.name
        problem = Problem(spec, array.shape[0], dtype, default_device(), False, self.resources)
        return blocked if self.implementation.decline(problem) else self.implementation

    def _sum(self, array: Array, names: Names, like: Array) -> Array:
        return (lax.psum(array, names) if names else array).astype(like.dtype)

    def _with_wide_borders(self, dx: Array, dy: Array, kernel: Array) -> Array:
        """Gradients of a half type, in float32 where windows of several devices overlap.

        There they are summed over devices, and the sum must be rounded only once.
        """
        if not DTYPES[dx.dtype.name].is_half:
            return dx
        spec, dx = self.local(), widen(dx)
        for cut in self._cuts():
            axis, step = cut.axis + 1, cut.spec.strides[cut.axis]
            shared = cut.extent - step
            if cut.spec.padding_mode != "zeros":  # rows are read a second time, as padding
                shared = max(shared, 2 * max(cut.spec.padding[cut.axis]))
            if shared <= 0:
                continue
            few = min(-(-shared // step), cut.outputs)
            length = (few - 1) * step + cut.extent
            shared = min(shared, length)
            border = _with_size(spec, cut.axis, length, few)
            for first, at, skipped in (
                (0, 0, 0),
                (cut.outputs - few, cut.window - shared, length - shared),
            ):
                outputs = lax.slice_in_dim(dy, first, first + few, axis=axis)
                kernels = kernel
                if cut.axis not in cut.spec.shared_axes:
                    kernels = lax.slice_in_dim(kernel, first, first + few, axis=cut.axis)
                part = self._run("input_grad", outputs, kernels, wide=True, spec=border)
                part = lax.slice_in_dim(part, skipped, skipped + shared, axis=axis)
                dx = lax.dynamic_update_slice_in_dim(dx, part, at, axis)
        return dx


def alone(
    name: Map, implementation: Implementation, spec: LocalConvSpec, resources: Resources
) -> Callable[[Any, Any], Any]:
    """A map on one device."""
    if spec.padding_mode == "zeros":
        return partial(getattr(implementation, name), spec=spec, resources=resources)
    unsplit = Split((), ((),) * spec.ndim, (), ())
    run: Callable[[Any, Any], Any] = getattr(
        Part(spec, unsplit, None, (), implementation, resources), name
    )
    return run


def _with_size(spec: LocalConvSpec, axis: int, inputs: int, outputs: int) -> LocalConvSpec:
    """*spec* with another size of one axis, whose padding is part of the input."""
    changes: dict[str, Any] = {}
    for name, value in (("input_size", inputs), ("output_size", outputs), ("padding", (0, 0))):
        sizes = [*getattr(spec, name)]
        sizes[axis] = value
        changes[name] = tuple(sizes)
    return replace_fields(spec, **changes).sharing(spec.shared_axes)
