"""The two seams: what a backend is, what an implementation is, and the records that name them.

Requirements this module is written to:

* Whoever writes an implementation writes three bilinear maps and nothing about autodiff.
* Whoever writes a backend closes the derivative rules once, for all its implementations.
* Entries are data (`lcmulti.plugins.records`); ``load`` names what to import later.
* Everything handed to either is normalised: channels last, explicit zero padding, tuples.
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
"""Samples assumed where the batch is symbolic: workspace is sized for it."""


class Resources(NamedTuple):
    """What a computation may use.

    Parameters
    ----------
    max_workspace : int
        Bytes that may be held beyond inputs, outputs, weights and their gradients.
    threads : int or None
        Threads an implementation with a choice of its own may use; None leaves it to that choice.
    precision, tiles : str
        See `lcmulti.choosing.settings.Settings`; for implementations that have such a choice.
    """

    max_workspace: int
    threads: int | None = None
    precision: str = "ieee"
    tiles: str = "tuned"


class Facts(NamedTuple):
    """What dispatch needs to know of an array.

    Parameters
    ----------
    shape : tuple
        Ints; None where a dimension is not known yet (a symbolic batch).
    dtype : str
        Name of the element type, ``"float32"``.
    device : str
        Kind of device, ``"cpu"`` or ``"gpu"``.
    transformed : bool
        Whether the framework is transforming or tracing the call in a way that only
        implementations declared `ImplementationEntry.transformable` can serve.
    exported : bool
        Whether the framework records the call for another process, where only what is declared
        `ImplementationEntry.portable` can be loaded.
    """

    shape: tuple[int | None, ...]
    dtype: str
    device: str
    transformed: bool = False
    exported: bool = False


class Problem(NamedTuple):
    """One call as an implementation sees it when asked whether it can serve."""

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
    their inputs alone and keep no state, for they are called from many threads at once.

    Three methods are for people to read and may be left out: ``details(problem)``, lines for
    `lcmulti.explain` about a call that is served; ``unavailable()``, in a sentence why none is
    served on this machine, or None; ``hardware()``, in a word what of this machine it uses. In
    PyTorch an attribute ``never_rounds = True`` says that float32 is multiplied in float32
    whatever PyTorch is allowed to do.
    """

    def decline(self, problem: Problem) -> str | None:
        """Why this call cannot be served, in a few words, or None if it can.

        A pure function of *problem*: the answer is kept for all calls alike, so a switch of the
        framework that may be turned is to be read by the maps.
        """
        ...

    def workspace(self, problem: Problem) -> int:
        """Largest number of bytes any of the three maps holds beyond inputs and outputs."""
        ...

    def forward(self, x: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """Return ``y``."""
        ...

    def input_grad(self, dy: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """Return ``dx``, the adjoint of `forward` in ``x`` applied to ``dy`` (no conjugation)."""
        ...

    def kernel_grad(self, x: Any, dy: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """Return ``dkernel``, the adjoint of `forward` in ``kernel`` applied to ``dy``."""
        ...


Map = Literal["forward", "input_grad", "kernel_grad"]
"""Name of one of the three maps."""

DERIVATIVES: dict[Map, tuple[tuple[Map, str], tuple[Map, str]]] = {
    "forward": (("input_grad", "gb"), ("kernel_grad", "ag")),
    "input_grad": (("forward", "gb"), ("kernel_grad", "ga")),
    "kernel_grad": (("input_grad", "bg"), ("forward", "ag")),
}
"""What the gradients of each map are: the map is bilinear, so they are maps again.

Of ``map(a, b)`` with the gradient ``g`` of its result, the first entry gives the gradient in ``a``
and the second the one in ``b``: a map, and its two arguments in order. ``("input_grad", "gb")`` is
``input_grad(g, b)``. Backends close the derivatives of all implementations with this table.
"""

Operation = Callable[[Any, Any, LocalConvSpec, Resources], Any]
"""One of the maps, ``(x, kernel, spec, resources) -> y``, differentiable to any order."""

Call = Callable[[Any, Any, Any], Any]
"""A planned call, ``(x, kernel, bias) -> y``, on arrays as the caller has them; *bias* or None."""


class Steps(NamedTuple):
    """What stands between a caller's arrays and a map.

    Parameters
    ----------
    channels_first : bool
        Whether arrays come and go with their channels after the batch.
    padding_indices : tuple of (int, ndarray)
        ``(axis, indices)`` that pad the channels-last input in a mode other than zeros.
    given : LocalConvSpec, optional
        The caller's geometry, of which both are: for an operation that pads on its own.
    """

    channels_first: bool = False
    padding_indices: tuple[tuple[int, np.ndarray], ...] = ()
    given: LocalConvSpec | None = None


@runtime_checkable
class WholeOperation(Protocol):
    """An operation that takes the steps around its map itself.

    For a framework whose users would see them: in PyTorch the last step is a view of a result.
    """

    def __call__(self, x: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `Operation`."""
        ...

    def whole(self, problem: Problem, steps: Steps) -> Call:
        """The call, with *steps* around the map and the bias added; asked for once a plan."""
        ...


class Backend(Protocol):
    """A framework: it converts arrays, describes them and closes the derivative rules."""

    def prepare(self, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
        """Turn the framework's variables into tensors and apply its automatic casts.

        *arrays* are ``(x, kernel, bias)``, the last one None where there is no bias.
        """
        ...

    def facts(self, array: Any, batched: bool = False) -> Facts:
        """Describe an array of this framework; called on every call, so keep it short.

        With *batched*, axis 0 is the batch, which may be symbolic and is then given as None.
        """
        ...

    def from_numpy(self, array: np.ndarray, like: Any = None) -> Any:
        """Convert to this framework, on the device of *like* if given."""
        ...

    def to_numpy(self, array: Any) -> np.ndarray:
        """Convert to NumPy (bfloat16 as ``ml_dtypes.bfloat16``)."""
        ...

    def on(self, device: str) -> AbstractContextManager[Any]:
        """A context in which `from_numpy` places arrays on a kind of device, if there is one."""
        ...

    def move_axis(self, array: Any, source: int, destination: int) -> Any:
        """`numpy.moveaxis`, differentiable."""
        ...

    def take(self, array: Any, indices: np.ndarray, axis: int) -> Any:
        """`numpy.take` along one axis, differentiable."""
        ...

    def add(self, y: Any, bias: Any) -> Any:
        """``y + bias`` by broadcasting, differentiable; gradients of half types sum in float32."""
        ...

    def einsum(self, subscripts: str, *arrays: Any) -> Any:
        """`numpy.einsum`, differentiable; half types are summed in float32."""
        ...

    def close(
        self, implementation: Implementation, entry: ImplementationEntry, name: Map = "forward"
    ) -> Operation:
        """Make one map of an implementation differentiable; called once for each.

        Unless the operation is a `WholeOperation`, `move_axis`, `take` and `add` are called around
        it.
        """
        ...

    def opaque(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Keep a tracer of Python code (not of array operations) out of a function, if any.

        *function* takes arrays (or None) and, last, a tuple of plain values.
        Frameworks without such a tracer return it as it is.
        """
        ...

    def devices(self) -> list[str]:
        """Names of the devices present, for people to read."""
        ...

    def vjp(
        self, function: Callable[..., Any], arrays: tuple[Any, ...], cotangent: Any
    ) -> tuple[Any, tuple[Any, ...]]:
        """Value of ``function(*arrays)`` and the gradients of ``sum(value * cotangent)``.

        Raises `NotImplementedError` where the framework has no differentiation.
        """
        ...

    def jvp(
        self, function: Callable[..., Any], arrays: tuple[Any, ...], tangents: tuple[Any, ...]
    ) -> tuple[Any, Any]:
        """Value and forward-mode tangent of ``function(*arrays)``; raises as `vjp` does."""
        ...
