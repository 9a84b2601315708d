"""`sharded`: a locally connected operation, with its weights divided over the devices of a mesh."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from lcmulti import plugins
from lcmulti.choosing import dispatch
from lcmulti.choosing.settings import current
from lcmulti.errors import ArgumentError, ArgumentTypeError, DtypeError, ShapeError, described
from lcmulti.geometry.arguments import is_sequence
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Map, Problem, Resources
from lcmulti_jax import derivatives
from lcmulti_jax.compat import automatic
from lcmulti_jax.halos import Names
from lcmulti_jax.partitioning import Placed
from lcmulti_jax.parts import Part, Split, size
from lcmulti_jax.sharded_arrays import ShardedArrays

__all__ = ["Sharded", "sharded"]

AxisNames = str | Sequence[str] | None


def sharded(
    spec: LocalConvSpec,
    mesh: Mesh,
    positions: AxisNames | Sequence[AxisNames],
    *,
    batch: AxisNames = None,
    transposed: bool = False,
    implementation: str = "auto",
) -> Sharded:
    """Divide a locally connected operation over the devices of a mesh, by output positions.

    Each device holds the weights of its positions and computes them. Only inputs at the borders
    travel, from one device to the next. Sizes need not be multiples of the number of devices, and
    there may be fewer positions than devices.

    Parameters
    ----------
    spec : LocalConvSpec
        The geometry of the whole; any padding mode.
    mesh : jax.sharding.Mesh
    positions : str or tuple
        Axis of the mesh that divides the first spatial axis; or one entry for each spatial axis: a
        name, a tuple of names, or None.
    batch : str or tuple of str, optional
        Axes of the mesh that divide the batch.
    transposed : bool, default False
        Whether it is the transposed operation, the adjoint of *spec*, whose positions are inputs.
    implementation : str, default ``"auto"``
        The implementation that computes each device's part.

    Returns
    -------
    Sharded
        Call it on ``(x, kernel, bias)``.

    Raises
    ------
    ArgumentError
        For names that the mesh does not have, or that are given twice.

    Examples
    --------
    >>> import jax, lcmulti, lcmulti_jax
    >>> mesh = jax.make_mesh((jax.device_count(),), ("rows",))
    >>> spec = lcmulti.LocalConvSpec((30, 30, 3), 8, 3, data_format="channels_last")
    >>> layer = lcmulti_jax.sharded(spec, mesh, "rows")
    >>> kernel, bias = layer.init(jax.random.key(0))
    >>> layer(jax.numpy.ones((2, 30, 30, 3)), kernel, bias).shape
    (2, 28, 28, 8)
    """
    if not isinstance(mesh, Mesh):
        raise ArgumentTypeError("mesh", "a jax.sharding.Mesh", mesh)
    told = tuple(positions) if is_sequence(positions) else (positions,)
    given = (*told, *(None,) * (spec.ndim - len(told)))
    if len(given) != spec.ndim:
        expected = f"at most {spec.ndim} entries, one for each spatial axis"
        raise ArgumentError("positions", expected, positions)
    names = tuple(_names("positions", each, mesh) for each in given)
    samples = _names("batch", batch, mesh)
    flat = [name for each in (*names, samples) for name in each]
    if len(set(flat)) != len(flat):
        raise ArgumentError("batch" if samples else "positions", "each axis of the mesh once", flat)
    where = Placed(automatic(mesh), Split(samples, names, (), ()))
    return Sharded(spec, where, transposed, implementation)


class Sharded(ShardedArrays):
    """The result of `sharded`: a function of arrays that are divided over devices.

    Parameters
    ----------
    spec : LocalConvSpec
        The geometry of the whole.
    where : Placed
    transposed : bool
    implementation : str

    Attributes
    ----------
    kernel_shape, bias_shape : tuple of int
        Shapes of the arrays it takes. Divided axes are multiples of the number of devices. Elements
        beyond the layer are never read, and their gradient is zero.
    kernel_sharding, bias_sharding : NamedSharding
    """

    def __init__(
        self, spec: LocalConvSpec, where: Placed, transposed: bool, implementation: str
    ) -> None:
        super().__init__(spec, where, transposed)
        self.implementation = implementation

    def __call__(self, x: Array, kernel: Array, bias: Array | None = None) -> Array:
        """Apply the operation.

        Parameters
        ----------
        x : array
            ``(N, *input_size, in_channels)``, or channels first as in `spec`, with any sharding; or
            of `input_shape`, which is divided evenly.
        kernel, bias : array
            With shapes `kernel_shape` and `bias_shape`, as `init` and `put` make them.

        Returns
        -------
        array
            ``(N, *output_size, filters)`` or channels first. Within `jax.jit`, rows stay where they
            are computed. As the result of a compiled function, JAX gathers an array whose size is
            not a multiple of the number of devices.

        Raises
        ------
        ShapeError, DtypeError
            For arrays of another shape or dtype.
        """
        spec, where = self.spec, self._where
        self._check(x, kernel, bias)
        first = spec.data_format == "channels_first"
        if first:
            x = jnp.moveaxis(x, 1, -1)
        source = self._roles[0]
        batch = x.shape[0]
        x = _grown(x, where.shape(source, self._inner, batch))
        x = jax.lax.with_sharding_constraint(x, where.sharding(source, self._inner))
        operation, resources = self._operation(batch, x.dtype.name)
        y = operation(x, kernel, self._inner, resources)
        if bias is not None:
            y = plugins.load_backend("jax").add(y, bias)
        size = spec.input_size if self.transposed else spec.output_size
        y = y[(slice(None), *map(slice, size))]
        return jnp.moveaxis(y, -1, 1) if first else y

    def _check(self, x: Array, kernel: Array, bias: Array) -> None:
        spec = self.spec
        sample = spec.output_shape if self.transposed else spec.input_shape
        given = tuple(x.shape[1:])
        if given not in (sample, self.input_shape(1)[1:]):
            expected = f"shape (N, {', '.join(map(str, sample))})"
            raise ShapeError("x", expected, described(str(x.shape)))
        samples = size(self._where.split.samples, self.mesh)
        if x.shape[0] % samples:
            raise ShapeError("x", f"a multiple of {samples} samples", described(str(x.shape)))
        for name, array, wanted in (
            ("kernel", kernel, self.kernel_shape),
            ("bias", bias, self.bias_shape),
        ):
            if array is None:
                continue
            if tuple(array.shape) != wanted:
                what = described(f"{tuple(array.shape)}; put(array) spreads a whole one")
                raise ShapeError(name, f"shape {wanted}", what)
            if array.dtype != x.dtype:
                raise DtypeError(name, f"dtype {x.dtype.name}, as x has", array.dtype.name)

    def _operation(self, batch: int, dtype: str) -> tuple[Any, Resources]:
        """The operation that computes a device's part, and its resources."""
        settings, where = current(), self._where
        resources = Resources(settings.max_workspace, settings.threads)
        device = self.mesh.devices.flat[0].platform
        part = Part(self._inner, where.split, self.mesh, (), None, resources)  # type: ignore[arg-type]
        samples = batch // size(where.split.samples, self.mesh)
        problem = Problem(part.local(), samples, dtype, device, False, resources)
        entry, _ = dispatch.choose("jax", problem, self.implementation, settings)
        found = plugins.load_implementation("jax", entry.name)
        name: Map = "input_grad" if self.transposed else "forward"
        return derivatives.operation(found, entry.portable, name, where), resources


def _names(argument: str, given: Any, mesh: Mesh) -> Names:
    """Check axes of the mesh; leave out those with one device."""
    names = () if given is None else (given,) if isinstance(given, str) else tuple(given)
    for name in names:
        if name not in mesh.shape:
            known = ", ".join(map(repr, mesh.axis_names))
            raise ArgumentError(argument, f"axes of the mesh, which are {known}", given)
    return tuple(name for name in names if mesh.shape[name] > 1)


def _grown(array: Array, shape: tuple[int, ...]) -> Array:
    """*array* with zeros at the end of its axes."""
    if tuple(array.shape) == shape:
        return array
    return jnp.pad(array, [(0, n - m) for n, m in zip(shape, array.shape, strict=True)])
