"""Compute the value and all gradients of a case: by a backend's own differentiation, or by maps.

`Results` holds the value and all gradients of one call, as NumPy arrays in the caller's layout.
Without differentiation, the three maps are called, and the steps around them (move the channels,
apply a padding mode, add the bias) are done here in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from lcmulti import plugins
from lcmulti.algorithms import reference
from lcmulti.choosing import framework
from lcmulti.choosing.explain import explain
from lcmulti.choosing.settings import current
from lcmulti.conformance.case import Case
from lcmulti.errors import DtypeError
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.operations.local_conv import local_conv
from lcmulti.plugins.contract import Backend, Implementation, Resources
from lcmulti.types import Array

__all__ = ["MAPS", "BackendRunner", "Inputs", "ReferenceRunner", "Results", "Runner"]


class Inputs(NamedTuple):
    """Arguments of one call.

    Parameters
    ----------
    x : ndarray
        ``(N, *spec.input_shape)``.
    kernel : ndarray
        ``spec.kernel_shape``.
    bias : ndarray or None
        ``(*output_size, filters)``, with 1 where it is shared.
    dy : ndarray
        ``(N, *spec.output_shape)``, the gradient of the output.
    """

    x: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray | None
    dy: np.ndarray

    def each(self, function: Callable[[np.ndarray], np.ndarray]) -> Inputs:
        """Apply *function* to every array."""
        bias = None if self.bias is None else function(self.bias)
        return Inputs(function(self.x), function(self.kernel), bias, function(self.dy))

    @property
    def given(self) -> tuple[np.ndarray, ...]:
        """The arguments of the call: ``x``, ``kernel`` and, if there is one, ``bias``."""
        return tuple(each for each in (self.x, self.kernel, self.bias) if each is not None)

    def operands(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The two arrays that each map takes."""
        return {
            "forward": (self.x, self.kernel),
            "input_grad": (self.dy, self.kernel),
            "kernel_grad": (self.x, self.dy),
        }


class Results(NamedTuple):
    """Value of one call and gradients of ``sum(y * dy)``; None for the bias if there is none."""

    forward: Any
    input_grad: Any
    kernel_grad: Any
    bias_grad: Any = None


MAPS = Results._fields


class Runner(Protocol):
    """Computes cases."""

    implementation: str
    """Name of the implementation that served the last call."""

    def forward(self, case: Case, inputs: Inputs) -> np.ndarray:
        """Compute the value; ``inputs.dy`` is not used."""
        ...

    def results(self, case: Case, inputs: Inputs) -> Results:
        """Compute the value and all gradients."""
        ...


class BackendRunner:
    """A registered backend: `local_conv` and the backend's own differentiation.

    For a backend without reverse mode, the three maps of the implementation that served the
    forward call give the gradients.

    Parameters
    ----------
    name : str
    wanted : str, default "auto"
        The ``implementation`` of its calls.
    """

    def __init__(self, name: str, wanted: str = "auto") -> None:
        self.name, self.wanted = name, wanted
        self.entry = plugins.registry().backends[name]
        self.backend = plugins.load_backend(name)
        self.implementation = ""

    def lacks(self, dtype: np.dtype) -> str | None:
        """Why this backend, as configured, has no arrays of *dtype*; None if it has."""
        if dtype.name not in self.entry.dtypes:
            return f"has no {dtype}"
        try:
            self.backend.from_numpy(np.zeros(1, dtype))
        except DtypeError as error:
            return str(error)
        return None

    def forward(self, case: Case, inputs: Inputs) -> np.ndarray:
        """See `Runner.forward`."""
        return self.backend.to_numpy(self._call(case)(*self._arrays(inputs)))

    def results(self, case: Case, inputs: Inputs) -> Results:
        """See `Runner.results`."""
        if "reverse" in self.entry.capabilities:
            dy = self.backend.from_numpy(inputs.dy)
            value, gradients = self.vjp(case, self._arrays(inputs), dy)
            return Results(*map(self.backend.to_numpy, (value, *gradients)))
        y = self.forward(case, inputs)
        maps = plugins.load_implementation(self.name, self.implementation)
        return Results(y, *_gradients(_OnNumpy(self.backend, maps), case.spec, inputs))

    def vjp(
        self, case: Case, arrays: tuple[Array, ...], dy: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        """`Backend.vjp` of a call."""
        return self.backend.vjp(self._call(case), arrays, dy)

    def _arrays(self, inputs: Inputs) -> tuple[Array, ...]:
        return tuple(map(self.backend.from_numpy, inputs.given))

    def _call(self, case: Case) -> Any:
        def call(*arrays: Array) -> Array:
            # Asked within the call, because under a transform another implementation may serve.
            arguments = {"implementation": self.wanted, **case.arguments}
            found = explain(*arrays, backend=self.name, **arguments)
            self.implementation = found.implementation
            return local_conv(*arrays, backend=self.name, **arguments)

        return call


class ReferenceRunner:
    """`lcmulti.reference`, in the dtype of the inputs."""

    implementation = "reference"

    def forward(self, case: Case, inputs: Inputs) -> np.ndarray:
        """See `Runner.forward`."""
        y: np.ndarray = local_conv(
            inputs.x, inputs.kernel, inputs.bias,
            backend=framework.NUMPY, implementation=self.implementation, **case.arguments,
        )  # fmt: skip
        return y

    def results(self, case: Case, inputs: Inputs) -> Results:
        """See `Runner.results`."""
        maps = plugins.load_implementation(framework.NUMPY, self.implementation)
        return Results(self.forward(case, inputs), *_gradients(maps, case.spec, inputs))


class _OnNumpy:
    """The maps of an implementation, with NumPy arrays as arguments and results."""

    def __init__(self, backend: Backend, maps: Implementation) -> None:
        self.backend, self.maps = backend, maps

    def input_grad(
        self, dy: Array, kernel: Array, spec: LocalConvSpec, resources: Resources
    ) -> Array:
        there = self.backend.from_numpy(dy), self.backend.from_numpy(kernel)
        return self.backend.to_numpy(self.maps.input_grad(*there, spec, resources))

    def kernel_grad(self, x: Array, dy: Array, spec: LocalConvSpec, resources: Resources) -> Array:
        there = self.backend.from_numpy(x), self.backend.from_numpy(dy)
        return self.backend.to_numpy(self.maps.kernel_grad(*there, spec, resources))


def _gradients(
    maps: Any, spec: LocalConvSpec, inputs: Inputs
) -> tuple[np.ndarray, np.ndarray, Any]:
    """Gradients of a whole call, from the maps of its computed spec."""
    settings, computed = current(), spec.computed()
    resources = settings.resources
    x, dy = inputs.x, inputs.dy
    if spec.data_format == "channels_first":
        x, dy = np.moveaxis(x, 1, -1), np.moveaxis(dy, 1, -1)
    dbias = None if inputs.bias is None else reference.bias_grad(dy, inputs.bias.shape)
    indices = spec.padding_indices()
    padded = x
    for axis, sources in indices:
        padded = np.take(padded, sources, axis)
    dkernel = maps.kernel_grad(padded, dy, computed, resources)
    dx = maps.input_grad(dy, inputs.kernel, computed, resources)
    for axis, sources in reversed(indices):
        dx = _untake(dx, sources, axis, x.shape[axis])
    if spec.data_format == "channels_first":
        dx = np.moveaxis(dx, -1, 1)
    return dx, dkernel, dbias


def _untake(array: np.ndarray, indices: np.ndarray, axis: int, size: int) -> np.ndarray:
    """The adjoint of `numpy.take` along an axis of *size*."""
    total = np.zeros((size, *np.moveaxis(array, axis, 0).shape[1:]), array.dtype)
    np.add.at(total, indices, np.moveaxis(array, axis, 0))
    return np.moveaxis(total, 0, axis)
