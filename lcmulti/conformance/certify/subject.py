"""What is certified: a backend together with one way of choosing its implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, cast

import numpy as np

from lcmulti import plugins
from lcmulti.choosing.settings import current
from lcmulti.conformance.bounds import compare, within
from lcmulti.conformance.calls import BackendRunner, Inputs, Results
from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.frameworks import COMPILING, framework_of, wide
from lcmulti.conformance.inputs import numpy_dtype
from lcmulti.errors import LcmultiError
from lcmulti.operations.local_conv import local_conv
from lcmulti.plugins.contract import (
    Backend,
    BackendEntry,
    Implementation,
    ImplementationEntry,
    Map,
    Problem,
    Resources,
)

__all__ = ["AUTO", "CORE_DTYPE", "Subject"]

AUTO = "auto"
CORE_DTYPE = "float32"
"""What every backend and every implementation computes in, or is not certified."""


@dataclass(frozen=True)
class Subject:
    """A backend and ``"auto"`` or the name of one of its implementations.

    Parameters
    ----------
    backend, implementation : str
    device : str or None
        Kind of device the arrays are placed on; None for wherever the backend places them.
    """

    backend: str
    implementation: str
    device: str | None = None

    def __str__(self) -> str:
        return f"{self.backend}-{self.implementation}"

    @property
    def entry(self) -> BackendEntry:
        """The backend's record."""
        return plugins.registry().backends[self.backend]

    @property
    def owner(self) -> Backend:
        """The backend."""
        return plugins.load_backend(self.backend)

    @property
    def implementation_entry(self) -> ImplementationEntry:
        """The implementation's record; ``auto`` has none."""
        return plugins.registry().implementations[self.backend, self.implementation]

    @property
    def maps(self) -> Implementation:
        """The three maps; ``auto`` has none."""
        return plugins.load_implementation(self.backend, self.implementation)

    def map(self, name: str) -> Callable[..., Any]:
        """One of the three maps, as the framework runs it: JAX never but compiled.

        Closed, it is the program that calls with gradients are made of, compiled once for both.
        """
        if framework_of(self.backend) in COMPILING:
            return self.owner.close(self.maps, self.implementation_entry, cast(Map, name))
        maps: Callable[..., Any] = getattr(self.maps, name)
        return maps

    @cached_property
    def placed(self) -> Callable[[], AbstractContextManager[Any]]:
        """Makes the context in which new arrays are on the device asked for."""
        if self.device is None:
            return nullcontext
        return plugins.placement(self.backend, self.device)

    def array(self, array: np.ndarray) -> Any:
        """Convert to the backend, on the device."""
        with self.placed():
            return self.owner.from_numpy(array)

    def arrays(self, inputs: Inputs) -> tuple[Any, ...]:
        """``x``, ``kernel`` and, if there is one, ``bias``."""
        given = (inputs.x, inputs.kernel, inputs.bias)
        return tuple(self.array(each) for each in given if each is not None)

    def call(self, case: Case) -> Callable[..., Any]:
        """`local_conv` of ``(x, kernel)`` or ``(x, kernel, bias)`` for a case."""

        def local(*arrays: Any) -> Any:
            return local_conv(
                *arrays, backend=self.backend, implementation=self.implementation, **case.arguments
            )

        return local

    def results(self, case: Case, inputs: Inputs) -> Results:
        """Value and gradients as NumPy arrays, by reverse mode or else by the three maps."""
        runner = BackendRunner(self.backend, self.implementation)
        with self.placed():
            return runner.results(case, inputs)

    @staticmethod
    def resources() -> Resources:
        """What the settings in force allow."""
        return current().resources

    def problem(self, case: Case, dtype: str) -> Problem:
        """What an implementation is asked to serve."""
        device = self.device or device_of(self.backend)
        return Problem(case.spec.computed(), case.batch, dtype, device, False, self.resources())

    def lacks_device(self) -> str | None:
        """Why the implementation's record rules it out where arrays are placed."""
        devices = self.implementation_entry.devices
        if not devices or (device := self.device or device_of(self.backend)) in devices:
            return None
        return f"does not run on {device}"

    def not_here(self) -> str | None:
        """Why the implementation serves nothing on this machine, by its record or its own word."""
        if (reason := self.lacks_device()) is not None:
            return reason
        unavailable: Callable[[], str | None] | None = getattr(self.maps, "unavailable", None)
        return None if unavailable is None else unavailable()

    def refusal(self, case: Case, dtype: str, **facts: Any) -> str | None:
        """Why, by what its records declare and its implementation declines, it does not serve.

        With *facts* of the problem other than the case's.
        """
        if (reason := lacks(self.backend, dtype)) is not None:
            return f"{self.backend}: {reason}"
        if self.implementation == AUTO:
            return None
        entry, problem = self.implementation_entry, self.problem(case, dtype)._replace(**facts)
        if dtype not in entry.dtypes:
            reason = f"does not compute in {dtype}"
        else:
            reason = self.lacks_device() or self.maps.decline(problem)
        return None if reason is None else f"{self}: {reason}"

    def require(self, case: Case, dtype: str, **facts: Any) -> None:
        """Skip a case that is declined; fail where the core would be skipped."""
        import pytest  # here alone: in a fresh process nothing tells that it is a test

        reason = self.refusal(case, dtype, **facts)
        if reason is None:
            return
        if self.implementation == AUTO and dtype == CORE_DTYPE:
            pytest.fail(f"the core cannot be skipped: {reason}")
        pytest.skip(reason)

    def lacking(self, capabilities: Iterable[str]) -> str | None:
        """Which of *capabilities* the backend does not declare, or None."""
        for name in capabilities:
            if name not in self.entry.capabilities:
                return f"{self.backend}: declares no capability {name!r}"
        return None

    @property
    def transformable(self) -> bool:
        """Whether the framework's transforms may be applied; ``auto`` finds what serves them."""
        return self.implementation == AUTO or self.implementation_entry.transformable

    def transform_refusal(self, case: Case, dtype: str) -> str | None:
        """Why, by what is declared and declined, it does not serve under a transform."""
        if self.implementation == AUTO:
            return None
        if not self.transformable:
            return f"{self}: declared not to be transformable"
        return self.refusal(case, dtype, transformed=True)

    def verify(self, what: str, got: Any, like: Any, value: np.ndarray, limit: np.ndarray) -> None:
        """Compare container, shape, dtype and device, then every element with its bound.

        Parameters
        ----------
        what : str
            For the message.
        got : array
            Of the backend.
        like : array
            Of the backend, with the container, dtype and device *got* must have.
        value, limit : ndarray
            What is expected and how far rounding may move it.
        """
        self.verify_kind(what, got, like, value.shape)
        self.verify_host(what, self.owner.to_numpy(got), value, limit)

    def verify_host(self, what: str, got: np.ndarray, value: np.ndarray, limit: np.ndarray) -> None:
        """Hold an array that is NumPy's to its bound."""
        assert got.shape == value.shape, f"{what}: shape {got.shape}, expected {value.shape}"
        if within(got, value, limit):
            return
        deviation = compare(got, value, limit)
        assert deviation.ok, (
            f"{what}: off by {deviation.error:.3g} at {deviation.place}, "
            f"{deviation.fraction:.3g} times its bound"
        )

    def verify_kind(self, what: str, got: Any, like: Any, shape: tuple[int, ...]) -> None:
        """Compare container, shape, dtype and device."""
        assert type(got) is type(like), f"{what}: container {type(got)}, expected {type(like)}"
        came, wanted = self.owner.facts(got), self.owner.facts(like)
        assert came.shape == shape, f"{what}: shape {came.shape}, expected {shape}"
        assert came.dtype == wanted.dtype, f"{what}: dtype {came.dtype}, expected {wanted.dtype}"
        assert came.device == wanted.device, f"{what}: on {came.device}, expected {wanted.device}"
        host = self.owner.to_numpy(got)
        kind = f"{type(host).__name__} {host.shape} {host.dtype}"
        wanted_host = f"ndarray {shape} {numpy_dtype(wanted.dtype)}"
        assert kind == wanted_host, f"{what}: in NumPy {kind}, expected {wanted_host}"


@cache
def lacks(backend: str, dtype: str) -> str | None:
    """Why there are no arrays of *dtype*, or None if there are."""
    try:
        with wide(backend, dtype):
            return BackendRunner(backend).lacks(numpy_dtype(dtype))
    except LcmultiError as error:  # bfloat16 in NumPy is a package of its own
        return str(error)


@cache
def device_of(backend: str) -> str:
    """Kind of device the backend places new arrays on."""
    owner = plugins.load_backend(backend)
    return owner.facts(owner.from_numpy(np.zeros((1, 1), CORE_DTYPE))).device
