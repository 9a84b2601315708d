"""Expected results of cases of any size, in float64, computed once for all dtypes and subjects.

More than a few thousand products are too many for the loops of `lcmulti.conformance.oracle`. Where
there are few positions, each is a small product of matrices here; where there are few taps,
`lcmulti.reference` computes them.
"""

from __future__ import annotations

from math import prod

import numpy as np

from lcmulti.conformance.bounds import Expected, bounds, expect
from lcmulti.conformance.calls import Inputs, Results
from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.expectation import Expectation
from lcmulti.conformance.inputs import draw, numpy_dtype

__all__ = ["expectation_of_any_size", "family"]

FAMILIES = {"float64": "float32", "complex128": "complex64", "bfloat16": "float16"}
"""Types that use the inputs of another type, in which these are exact as well."""

LEAST_NORMAL = 2.0**-14
"""The smallest normal number of float16."""


def family(dtype: str) -> str:
    """The type whose inputs *dtype* uses."""
    return FAMILIES.get(dtype, dtype)


Key = tuple[str, str, int, str]
"""Group, name, batch and dtype of a case."""

_exact: dict[Key, tuple[Inputs, Expected]] = {}
_latest: dict[Key, Expectation] = {}


def expectation_of_any_size(case: Case, dtype: str) -> Expectation:
    """What is expected of a case, kept until another one is needed.

    Checks are sorted by case and dtype, so this is computed once for all subjects.
    """
    key = case.group, case.name, case.batch, dtype
    if key not in _latest:
        inputs, expected = _of_family(case, family(dtype))
        inputs = inputs.each(lambda array: array.astype(numpy_dtype(dtype)))
        limits = bounds(case, expected, inputs.bias, dtype)
        _latest.clear()
        _latest[key] = Expectation(inputs, expected.values, expected.magnitudes, limits)
    return _latest[key]


def _of_family(case: Case, dtype: str) -> tuple[Inputs, Expected]:
    key = case.group, case.name, case.batch, dtype
    if key not in _exact:
        inputs = _drawn(case, dtype)
        _exact.clear()
        _exact[key] = inputs, _expected(case, inputs)
    return _exact[key]


def _drawn(case: Case, dtype: str) -> Inputs:
    """Arrays of numbers that are exact in every type that shares inputs."""
    if dtype != "float16":
        return draw(case, dtype)
    inputs = draw(case, "bfloat16").each(lambda array: array.astype(np.float32))
    return inputs.each(lambda a: np.where(np.abs(a) < LEAST_NORMAL, 0, a).astype(np.float32))


def _expected(case: Case, inputs: Inputs) -> Expected:
    spec = case.spec
    own = spec.padding_mode == "zeros" and prod(spec.output_size) < 4 * prod(spec.kernel_size)
    if not own:
        return expect(case, inputs)
    wide = np.complex128 if np.iscomplexobj(inputs.x) else np.float64
    exact = inputs.each(lambda array: array.astype(wide))
    return Expected(_by_position(case, exact), _by_position(case, exact.each(np.abs)))


def _by_position(case: Case, inputs: Inputs) -> Results:
    """Value and gradients, one output position after the other."""
    spec, (x, kernel, bias, dy) = case.spec, inputs
    if first := spec.data_format == "channels_first":
        x, dy = np.moveaxis(x, 1, -1), np.moveaxis(dy, 1, -1)
    groups, channels = spec.groups, spec.in_channels // spec.groups
    padded = np.pad(x, ((0, 0), *spec.padding, (0, 0)))
    y, dx, dkernel = np.zeros(dy.shape, x.dtype), np.zeros_like(padded), np.zeros_like(kernel)
    taps, filters = prod(spec.kernel_size), spec.filters // groups
    for position in np.ndindex(*spec.output_size):
        starts = [o * s for o, s in zip(position, spec.strides, strict=True)]
        window = tuple(map(_taps, starts, spec.kernel_size, spec.dilation))
        window = (slice(None), *window)
        own = tuple(0 if axis in spec.shared_axes else o for axis, o in enumerate(position))
        seen = padded[window].reshape(len(x), taps, groups, channels)
        weights = kernel[own].reshape(taps, channels, groups, filters)
        above = dy[(slice(None), *position)].reshape(len(x), groups, filters)
        y[(slice(None), *position)] = np.einsum("ntgc,tcgf->ngf", seen, weights).reshape(
            len(x), spec.filters
        )
        dx[window] += np.einsum("ngf,tcgf->ntgc", above, weights).reshape(dx[window].shape)
        product = np.einsum("ntgc,ngf->tcgf", seen, above)
        dkernel[own] += product.reshape(dkernel[own].shape)
    dx = dx[(slice(None), *spec.inner)]
    dbias = None
    if bias is not None:
        y = y + bias
        shared = tuple(1 + axis for axis, n in enumerate(bias.shape[:-1]) if n == 1)
        dbias = dy.sum((0, *shared)).reshape(bias.shape)
    if first:
        y, dx = np.moveaxis(y, -1, 1), np.moveaxis(dx, -1, 1)
    return Results(y, dx, dkernel, dbias)


def _taps(start: int, count: int, step: int) -> slice:
    return slice(start, start + (count - 1) * step + 1, step)
