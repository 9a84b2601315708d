"""`Contender`: a way to compute a workload, to be timed; and those of lcmulti itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import lcmulti
from lcmulti import plugins
from lcmulti.bench.workloads import Arrays, in_format
from lcmulti.choosing import framework
from lcmulti.choosing.settings import current
from lcmulti.conformance.bounds import compare, dot_bound
from lcmulti.dtypes import DTYPES
from lcmulti.types import Array

__all__ = ["Contender", "disagreement", "ours"]

CHECKED = 2
"""Number of samples whose outputs are compared with the reference."""


class Contender(NamedTuple):
    """A function of input and weights, and the arrays it is called with.

    Parameters
    ----------
    function : callable
        ``(x, weights) -> y``, on arrays of a framework.
    x, dy : ndarray
        Input and output gradient, with the axes in the order of the function.
    weights : ndarray or variable
        In the layout of the function; or a variable of the framework, which is used directly.
    maps : callable, optional
        ``(x, weights, dy) -> (y, dx, dweights)``, for a framework without differentiation.
    """

    function: Callable[[Any, Any], Any]
    x: np.ndarray
    weights: Any
    dy: np.ndarray
    maps: Callable[[Any, Any, Any], Any] | None = None


def ours(arrays: Arrays, backend: str, implementation: str, data_format: str) -> Contender:
    """`lcmulti.local_conv` of a backend, by one of its implementations or ``auto``."""
    arguments = _arguments(arrays, data_format, backend, implementation)

    def function(x: Array, kernel: Array) -> Any:
        return lcmulti.local_conv(x, kernel, **arguments)

    maps = None
    if "reverse" not in plugins.registry().backends[backend].capabilities:
        maps = _three_maps(arrays, backend, implementation, data_format)
    x, dy = (arrays.oriented(name, data_format) for name in ("x", "dy"))
    return Contender(function, x, arrays.kernel, dy, maps)


def _arguments(
    arrays: Arrays, data_format: str, backend: str, implementation: str
) -> dict[str, Any]:
    """Keyword arguments of `lcmulti.local_conv`."""
    named = {"data_format": data_format, "backend": backend, "implementation": implementation}
    return arrays.spec.arguments() | named


def _three_maps(
    arrays: Arrays, backend: str, implementation: str, data_format: str
) -> Callable[[Any, Any, Any], Any]:
    """The three maps of an implementation, for a backend without differentiation.

    In a padding mode other than zeros, ``dx`` is the gradient of the padded input.
    """
    found = lcmulti.explain(
        in_format(arrays.spec, data_format), batch=arrays.batch, dtype=arrays.dtype.name,
        backend=backend, implementation=implementation,
    )  # fmt: skip
    owner = plugins.load_backend(backend)
    chosen = plugins.load_implementation(backend, found.implementation)
    settings = current()
    resources = settings.resources
    spec, first = arrays.spec.computed(), data_format == "channels_first"
    sources = arrays.spec.padding_indices()

    def moved(array: Array, source: int, destination: int) -> Array:
        return owner.move_axis(array, source, destination) if first else array

    def maps(x: Array, kernel: Array, dy: Array) -> Any:
        x, dy = moved(x, 1, -1), moved(dy, 1, -1)
        for axis, indices in sources:
            x = owner.take(x, indices, axis)
        y = chosen.forward(x, kernel, spec, resources)
        dx = chosen.input_grad(dy, kernel, spec, resources)
        return moved(y, -1, 1), moved(dx, -1, 1), chosen.kernel_grad(x, dy, spec, resources)

    return maps


def disagreement(y: np.ndarray, arrays: Arrays, data_format: str) -> str | None:
    """How the first outputs differ from the reference, beyond rounding; None if they do not.

    A peer may sum half types in that type, so the bound is that of sums in the type itself.
    """
    got = np.moveaxis(y, 1, -1) if data_format == "channels_first" else y
    got = got[:CHECKED].astype("float64")
    x, kernel = arrays.x[:CHECKED].astype("float64"), arrays.kernel.astype("float64")
    arguments = _arguments(arrays, "channels_last", framework.NUMPY, "reference")
    expected = lcmulti.local_conv(x, kernel, **arguments)
    if got.shape != expected.shape:
        return f"outputs of shape {got.shape}, not {expected.shape}"
    size = lcmulti.local_conv(np.abs(x), np.abs(kernel), **arguments)
    roundoff = DTYPES[arrays.dtype.name].roundoff
    deviation = compare(got, expected, dot_bound(arrays.spec.terms + 1, size, roundoff, False))
    if deviation.ok:
        return None
    return f"wrong outputs: off by {deviation.error:.2g} at {deviation.place}"
