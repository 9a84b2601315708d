"""`Subject`: a backend, with ``auto`` or one of its implementations, that is certified."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache, partial
from typing import Any, cast

import numpy as np

from lcmulti import plugins
from lcmulti.choosing.dispatch import choose
from lcmulti.choosing.settings import Settings, current
from lcmulti.conformance.bounds import compare, within
from lcmulti.conformance.calls import BackendRunner, Inputs, Results
from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.frameworks import COMPILING, compiled, framework_of, wide
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
from lcmulti.types import Array

__all__ = ["AUTO", "CORE_DTYPE", "Subject", "device_of", "lacks"]

AUTO = "auto"
CORE_DTYPE = "float32"
"""The type that every backend and every implementation must have."""


@dataclass(frozen=True)
class Subject:
    """A backend and ``"auto"`` or the name of one of its implementations.

    Parameters
    ----------
    backend, implementation : str
    device : str or None
        Kind of device of the arrays; None for the default of the backend.
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
        """The record of the implementation, which ``auto`` has not."""
        return plugins.registry().implementations[self.backend, self.implementation]

    @property
    def maps(self) -> Implementation:
        """The implementation, which ``auto`` has not."""
        return plugins.load_implementation(self.backend, self.implementation)

    def map(self, name: str) -> Callable[..., Any]:
        """One of the three maps, as the framework runs it; in JAX, it is always compiled.

        It is closed, so that calls with gradients use the same compiled program.
        """
        if framework_of(self.backend) in COMPILING:
            return self.owner.close(self.maps, self.implementation_entry, cast(Map, name))
        maps: Callable[..., Any] = getattr(self.maps, name)
        return maps

    def program(self, name: str, *facts: Any) -> Callable[..., Any]:
        """One of the three maps as a function of its arrays; the framework compiles it in a hurry.

        *facts* are the spec and the resources.
        """
        computed = self.map(name)
        return compiled(self.backend, lambda a, b: computed(a, b, *facts), hurried=True)

    @cached_property
    def placed(self) -> Callable[[], AbstractContextManager[Any]]:
        """Returns a context in which new arrays are on the requested device."""
        if self.device is None:
            return nullcontext
        return plugins.placement(self.backend, self.device)

    def array(self, array: np.ndarray) -> Any:
        """Convert to the backend, on the device."""
        with self.placed():
            return self.owner.from_numpy(array)

    def arrays(self, inputs: Inputs) -> tuple[Array, ...]:
        """``x``, ``kernel`` and, if there is one, ``bias``."""
        return tuple(map(self.array, inputs.given))

    def call(self, case: Case) -> Callable[..., Any]:
        """`local_conv` for a case, as a function of ``(x, kernel)`` or ``(x, kernel, bias)``."""

        def local(*arrays: Array) -> Array:
            return local_conv(
                *arrays, backend=self.backend, implementation=self.implementation, **case.arguments
            )

        return local

    def vjp(
        self, case: Case, arrays: tuple[Array, ...], dy: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        """`Backend.vjp` of a call; where the framework compiles, as one program.

        Those of ``auto`` in the core type are compiled as users compile them, others in a hurry.
        The implementation that ``auto`` takes has the same program, which is compiled once.
        """
        dtype = self.owner.facts(dy).dtype
        one = replace(self, implementation=AUTO) if self._is_auto(case, dtype) else self
        core = one.implementation == AUTO and dtype == CORE_DTYPE
        value, gradients = _step(one, case, current(), hurried=not core)(arrays, dy)
        return value, tuple(gradients)

    def _is_auto(self, case: Case, dtype: str) -> bool:
        """Whether the framework compiles calls, and ``auto`` takes this implementation for one."""
        if self.implementation == AUTO or framework_of(self.backend) not in COMPILING:
            return False
        problem = self.problem(case, dtype)._replace(transformed=True)
        return choose(self.backend, problem, AUTO, current())[0].name == self.implementation

    def results(self, case: Case, inputs: Inputs) -> Results:
        """Value and gradients as NumPy arrays, by reverse mode or by the three maps."""
        with self.placed():
            return _Runner(self).results(case, inputs)

    @staticmethod
    def resources() -> Resources:
        """The resources of the settings in force."""
        return current().resources

    def problem(self, case: Case, dtype: str) -> Problem:
        """The problem that an implementation is asked to serve."""
        device = self.device or device_of(self.backend)
        return Problem(case.spec.computed(), case.batch, dtype, device, False, self.resources())

    def lacks_device(self) -> str | None:
        """Why the record of the implementation excludes the device of the arrays, or None."""
        devices = self.implementation_entry.devices
        if not devices or (device := self.device or device_of(self.backend)) in devices:
            return None
        return f"does not run on {device}"

    def not_here(self) -> str | None:
        """Why the implementation serves nothing on this machine, by its record or `unavailable`."""
        if (reason := self.lacks_device()) is not None:
            return reason
        unavailable: Callable[[], str | None] | None = getattr(self.maps, "unavailable", None)
        return None if unavailable is None else unavailable()

    def refusal(self, case: Case, dtype: str, **facts: Any) -> str | None:
        """Why it does not serve a case, by its records and by what its implementation declines.

        *facts* replace fields of the problem.
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
        """Skip a case that is declined; fail if that would skip a part of the core."""
        import pytest  # imported here: in a new process of a probe, pytest must not be imported

        reason = self.refusal(case, dtype, **facts)
        if reason is None:
            return
        if self.implementation == AUTO and dtype == CORE_DTYPE:
            pytest.fail(f"the core cannot be skipped: {reason}")
        pytest.skip(reason)

    def lacking(self, capabilities: Iterable[str]) -> str | None:
        """A reason if the backend does not declare one of *capabilities*; else None."""
        for name in capabilities:
            if name not in self.entry.capabilities:
                return f"{self.backend}: declares no capability {name!r}"
        return None

    @property
    def transformable(self) -> bool:
        """Whether the framework's transforms may be applied; for ``auto`` always."""
        return self.implementation == AUTO or self.implementation_entry.transformable

    def transform_refusal(self, case: Case, dtype: str) -> str | None:
        """Why it does not serve a case under a transform, or None."""
        if self.implementation == AUTO:
            return None
        if not self.transformable:
            return f"{self}: declared not to be transformable"
        return self.refusal(case, dtype, transformed=True)

    def verify(
        self, what: str, got: Any, like: Array, value: np.ndarray, limit: np.ndarray
    ) -> None:
        """Compare container, shape, dtype and device, then every element with its bound.

        Parameters
        ----------
        what : str
            Name of the result, for the message.
        got : array
            The result, an array of the backend.
        like : array
            An array of the backend with the container, dtype and device that *got* must have.
        value, limit : ndarray
            The expected values, and how far rounding may move them.
        """
        self.verify_kind(what, got, like, value.shape)
        self.verify_host(what, self.owner.to_numpy(got), value, limit)

    def verify_host(self, what: str, got: np.ndarray, value: np.ndarray, limit: np.ndarray) -> None:
        """Compare a NumPy array with its bound."""
        assert got.shape == value.shape, f"{what}: shape {got.shape}, expected {value.shape}"
        if within(got, value, limit):
            return
        deviation = compare(got, value, limit)
        assert deviation.ok, (
            f"{what}: off by {deviation.error:.3g} at {deviation.place}, "
            f"{deviation.fraction:.3g} times its bound"
        )

    def verify_kind(self, what: str, got: Any, like: Array, shape: tuple[int, ...]) -> None:
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


@lru_cache(maxsize=4096)
def _step(subject: Subject, case: Case, settings: Settings, hurried: bool) -> Callable[..., Any]:
    """Value and gradients of a call as a function of ``(arrays, dy)``, compiled once.

    What is compiled depends on the settings in force.
    """
    return compiled(subject.backend, partial(subject.owner.vjp, subject.call(case)), hurried)


@cache
def lacks(backend: str, dtype: str) -> str | None:
    """Why there are no arrays of *dtype*, or None if there are."""
    try:
        with wide(backend, dtype):
            return BackendRunner(backend).lacks(numpy_dtype(dtype))
    except LcmultiError as error:  # NumPy has bfloat16 only with the package ml_dtypes
        return str(error)


@cache
def device_of(backend: str) -> str:
    """Kind of device the backend places new arrays on."""
    owner = plugins.load_backend(backend)
    return owner.facts(owner.from_numpy(np.zeros((1, 1), CORE_DTYPE))).device


class _Runner(BackendRunner):
    """Computes cases on a backend, with the programs of a `Subject`."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject.backend, subject.implementation)
        self.subject = subject

    def vjp(
        self, case: Case, arrays: tuple[Array, ...], dy: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        """See `Subject.vjp`."""
        return self.subject.vjp(case, arrays, dy)
