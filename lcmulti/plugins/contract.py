"""The two seams: what a backend is and what an implementation is.

Requirements this module is written to:

* Whoever writes an implementation writes three bilinear maps and nothing about autodiff.
* Whoever writes a backend closes the derivative rules once, for all its implementations.
* Entries are data (`lcmulti.plugins.records`); ``load`` names what to import later.
* What an implementation receives is normalised: channels last, explicit zero padding, tuples.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.records import (
    ALL_DTYPES,
    CONTRACT,
    BackendEntry,
    ImplementationEntry,
)
from lcmulti.types import Array

__all__ = [
    "ALL_DTYPES",
    "CONTRACT",
    "DERIVATIVES",
    "UNKNOWN_BATCH",
    "Backend",
    "BackendEntry",
    "Call",
    "Facts",
    "Implementation",
    "ImplementationEntry",
    "Map",
    "Operation",
    "Problem",
    "Resources",
    "Steps",
    "WholeOperation",
]

UNKNOWN_BATCH = 1024
"""The batch that is assumed where it is symbolic, to estimate workspace."""


class Resources(NamedTuple):
    """The resources that a computation may use, and the settings it depends on.

    Parameters
    ----------
    max_workspace : int
        Bytes that may be held beyond inputs, outputs, weights and their gradients.
    threads : int or None
        Number of threads, for implementations with a thread pool; None leaves it to them.
    precision, tiles : str
        As in `lcmulti.choosing.settings.Settings`; for implementations that have this choice.
    """

    max_workspace: int
    threads: int | None = None
    precision: str = "ieee"
    tiles: str = "tuned"


class Facts(NamedTuple):
    """What dispatch needs to know about an array.

    Parameters
    ----------
    shape : tuple
        Ints; None for a dimension that is not known yet (a symbolic batch).
    dtype : str
        Name of the element type, ``"float32"``.
    device : str
        Kind of device, ``"cpu"`` or ``"gpu"``.
    transformed : bool
        Whether the framework is transforming or tracing the call in a way that only
        implementations declared `ImplementationEntry.transformable` can serve.
    exported : bool
        Whether the framework records the call for use in another process, which only
        implementations declared `ImplementationEntry.portable` can serve.
    """

    shape: tuple[int | None, ...]
    dtype: str
    device: str
    transformed: bool = False
    exported: bool = False


class Problem(NamedTuple):
    """One call, as described to an implementation that is asked whether it can serve it."""

    spec: LocalConvSpec
    batch: int | None
    dtype: str
    device: str
    transformed: bool
    resources: Resources

    @property
    def samples(self) -> int:
        """The batch, or `UNKNOWN_BATCH`."""
        return UNKNOWN_BATCH if self.batch is None else self.batch


@runtime_checkable
class Implementation(Protocol):
    """A way to compute the operation: three bilinear maps over arrays of one framework.

    Shapes, with ``N`` the batch and ``spec`` as in `LocalConvSpec.computed` (channels last,
    zeros for padding):

    * ``x``, ``dx``: ``(N, *input_size, in_channels)``
    * ``kernel``, ``dkernel``: ``(*positions_shape, *kernel_size, in_channels // groups, filters)``
    * ``y``, ``dy``: ``(N, *output_size, filters)``

    The maps return new arrays of the dtype they were given, sum half types in float32, leave
    their inputs unchanged, and keep no state, because many threads may call them at once.

    Three optional methods give information to users: ``details(problem)`` returns lines for
    `lcmulti.explain` about a call that is served. ``unavailable()`` returns a sentence that says
    why no call can be served on this machine, or None. ``hardware()`` names the hardware it uses,
    in a word. A fourth, ``tune(problem, told)``, is ``lcmulti tune``: it measures ways to compute,
    calls ``told(map, candidate, seconds)`` after each (None if it failed), keeps the fastest, and
    returns lines that say which. Two more, those of `lcmulti.operations.neighbours.CosineMaps`,
    compute the sheet penalty and its gradient. In PyTorch, an attribute ``never_rounds = True``
    declares that float32 is multiplied in float32 even where PyTorch is allowed to use
    TensorFloat-32.
    """

    def decline(self, problem: Problem) -> str | None:
        """Why this call cannot be served, in a few words, or None if it can.

        It must be a pure function of *problem*, because the answer is cached. A switch of the
        framework that a user may change must be read by the maps instead.
        """
        ...

    def workspace(self, problem: Problem) -> int:
        """Largest number of bytes any of the three maps holds beyond inputs and outputs."""
        ...

    def forward(self, x: Array, kernel: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        """Return ``y``."""
        ...

    def input_grad(
        self, dy: Array, kernel: Array, spec: LocalConvSpec, resources: Resources
    ) -> Array:
        """Return ``dx``, the adjoint of `forward` in ``x`` applied to ``dy`` (no conjugation)."""
        ...

    def kernel_grad(self, x: Array, dy: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        """Return ``dkernel``, the adjoint of `forward` in ``kernel`` applied to ``dy``."""
        ...


Map = Literal["forward", "input_grad", "kernel_grad"]
"""Name of one of the three maps."""

DERIVATIVES: dict[Map, tuple[tuple[Map, str], tuple[Map, str]]] = {
    "forward": (("input_grad", "gb"), ("kernel_grad", "ag")),
    "input_grad": (("forward", "gb"), ("kernel_grad", "ga")),
    "kernel_grad": (("input_grad", "bg"), ("forward", "ag")),
}
"""The gradients of each map. The maps are bilinear, so each gradient is one of the three maps.

For ``map(a, b)``, where ``g`` is the gradient of the result, the first entry gives the gradient in
``a`` and the second one that in ``b``: the name of a map, and its two arguments in order.
``("input_grad", "gb")`` stands for ``input_grad(g, b)``. With this table, backends make all
implementations differentiable.
"""

Operation = Callable[[Array, Array, LocalConvSpec, Resources], Array]
"""One of the maps, ``(x, kernel, spec, resources) -> y``, differentiable to any order."""

Call = Callable[[Array, Array, Array | None], Array]
"""A planned call, ``(x, kernel, bias) -> y``, on arrays as the caller has them; *bias* or None."""


class Steps(NamedTuple):
    """The steps between a caller's arrays and a map.

    Parameters
    ----------
    channels_first : bool
        Whether the caller's arrays have their channels after the batch.
    padding_indices : tuple of (int, ndarray)
        ``(axis, indices)`` that pad the channels-last input in a mode other than zeros.
    given : LocalConvSpec, optional
        The caller's geometry, from which the two others follow. An operation may pad by it.
    """

    channels_first: bool = False
    padding_indices: tuple[tuple[int, np.ndarray], ...] = ()
    given: LocalConvSpec | None = None


@runtime_checkable
class WholeOperation(Protocol):
    """An operation that takes the steps around its map itself.

    For a framework whose users would notice the steps: in PyTorch the last one would make a view.
    """

    def __call__(self, x: Array, kernel: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        """See `Operation`."""
        ...

    def whole(self, problem: Problem, steps: Steps) -> Call:
        """The map with *steps* around it and the bias added; called once for each plan."""
        ...


class Backend(Protocol):
    """A framework: it converts and describes arrays, and makes maps differentiable."""

    def prepare(self, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        """Apply the framework's automatic casts.

        *arrays* are ``(x, kernel, bias)``, the last one None where there is no bias.
        """
        ...

    def read(self, variable: Any) -> Array:
        """The array that an object of `BackendEntry.variable_types` holds.

        The framework records that it is read. A backend without such types needs no such method.
        """
        ...

    def facts(self, array: Array, batched: bool = False) -> Facts:
        """Describe an array of this framework. Every call does this, so it must be fast.

        With *batched*, axis 0 is the batch. A symbolic batch is described as None.
        """
        ...

    def from_numpy(self, array: np.ndarray, like: Array | None = None) -> Array:
        """Convert to this framework, on the device of *like* if that is given."""
        ...

    def to_numpy(self, array: Array) -> np.ndarray:
        """Convert to NumPy (bfloat16 as ``ml_dtypes.bfloat16``)."""
        ...

    def on(self, device: str) -> AbstractContextManager[Any]:
        """A context in which `from_numpy` places arrays on a device of this kind."""
        ...

    def move_axis(self, array: Array, source: int, destination: int) -> Array:
        """`numpy.moveaxis`, differentiable."""
        ...

    def take(self, array: Array, indices: np.ndarray, axis: int) -> Array:
        """`numpy.take` along one axis, differentiable."""
        ...

    def add(self, y: Array, bias: Array) -> Array:
        """``y + bias``, broadcast and differentiable; gradients of half types sum in float32."""
        ...

    def einsum(self, subscripts: str, *arrays: Array) -> Array:
        """`numpy.einsum`, differentiable; half types are summed in float32."""
        ...

    def close(
        self, implementation: Implementation, entry: ImplementationEntry, name: Map = "forward"
    ) -> Operation:
        """Make one map of an implementation differentiable; called once for each map.

        Unless the operation is a `WholeOperation`, `move_axis`, `take` and `add` are called around
        it.
        """
        ...

    def opaque(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Keep a tracer of Python code (not one of array operations) out of a function.

        *function* takes arrays (or None) and, last, a tuple of plain values. A framework without
        such a tracer returns *function* itself.
        """
        ...

    def devices(self) -> list[str]:
        """Names of the devices present, for people to read."""
        ...

    def vjp(
        self, function: Callable[..., Any], arrays: tuple[Array, ...], cotangent: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        """Value of ``function(*arrays)`` and the gradients of ``sum(value * cotangent)``.

        Raises `NotImplementedError` where the framework has no differentiation.
        """
        ...

    def jvp(
        self, function: Callable[..., Any], arrays: tuple[Array, ...], tangents: tuple[Array, ...]
    ) -> tuple[Array, Array]:
        """Value and forward-mode tangent of ``function(*arrays)``; raises as `vjp` does."""
        ...
