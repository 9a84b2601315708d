"""Workloads: layers from publications by name, or a geometry of one's own."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from math import prod
from typing import NamedTuple

import numpy as np

from lcmulti.conformance.case import Case
from lcmulti.conformance.cases import all_cases
from lcmulti.conformance.inputs import numpy_dtype
from lcmulti.errors import ArgumentError
from lcmulti.geometry.arguments import integer
from lcmulti.geometry.fields import replace_fields
from lcmulti.geometry.spec import LocalConvSpec

__all__ = ["DEFAULT", "Arrays", "Workload", "cases", "in_format", "named", "workload"]

DEFAULT = ("keras_docstring_1", "deepface_l6")
"""Small layers, for a first look."""


class Workload(NamedTuple):
    """A layer and a batch.

    Parameters
    ----------
    name : str
    spec : LocalConvSpec
    batch : int
    """

    name: str
    spec: LocalConvSpec
    batch: int


def workload(spec: LocalConvSpec, batch: int = 32, name: str = "own") -> Workload:
    """Make a workload from a geometry.

    Raises
    ------
    ArgumentError
        If *batch* is not a positive integer.
    """
    return Workload(name, spec, integer("batch", batch, 1))


def cases() -> dict[str, Case]:
    """The published layers that ship with the conformance suite, by name."""
    return {case.name: case for case in all_cases() if case.group == "workloads"}


def named(names: Iterable[str]) -> list[Workload]:
    """Published layers, with the batch of the publication.

    Raises
    ------
    ArgumentError
        If a name is unknown.
    """
    known, found = cases(), []
    for name in names:
        if name not in known:
            raise ArgumentError("workload", f"one of {', '.join(known)}", name)
        found.append(Workload(name, known[name].spec, known[name].batch))
    return found


class Arrays:
    """Random arrays of a workload, channels last; each is made once.

    Parameters
    ----------
    workload : Workload
    dtype : str
    """

    def __init__(self, workload: Workload, dtype: str) -> None:
        self.spec, self.batch = in_format(workload.spec, "channels_last"), workload.batch
        self.dtype = numpy_dtype(dtype)
        self._first: dict[str, np.ndarray] = {}

    def _normal(self, seed: int, *shape: int) -> np.ndarray:
        drawn = np.random.default_rng(seed).standard_normal(shape, dtype="float32")
        return drawn.astype(self.dtype, copy=False)

    @cached_property
    def x(self) -> np.ndarray:
        """``(N, *input_size, C)``."""
        return self._normal(0, self.batch, *self.spec.input_shape)

    @cached_property
    def kernel(self) -> np.ndarray:
        """``spec.kernel_shape``, scaled so that outputs are about as large as inputs."""
        scale = self.dtype.type(self.spec.terms**-0.5)
        kernel: np.ndarray = self._normal(1, *self.spec.kernel_shape) * scale
        return kernel

    @cached_property
    def dy(self) -> np.ndarray:
        """``(N, *output_size, F)``, the gradient of the output."""
        return self._normal(2, self.batch, *self.spec.output_shape)

    def oriented(self, name: str, data_format: str) -> np.ndarray:
        """``x`` or ``dy``, contiguous in a data format."""
        last: np.ndarray = getattr(self, name)
        if data_format == "channels_last":
            return last
        if name not in self._first:
            self._first[name] = np.ascontiguousarray(np.moveaxis(last, -1, 1))
        return self._first[name]

    @property
    def nbytes(self) -> int:
        """Bytes of all three arrays."""
        elements = self.batch * (prod(self.spec.input_shape) + prod(self.spec.output_shape))
        return (elements + prod(self.spec.kernel_shape)) * self.dtype.itemsize


def in_format(spec: LocalConvSpec, data_format: str) -> LocalConvSpec:
    """The same geometry in another data format."""
    return replace_fields(spec, data_format=data_format)
