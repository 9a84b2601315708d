r"""How far rounding may move each element: the forward error bound of a dot product.

Every element of the value and of each gradient is a sum of ``n`` products. For any order of the
sum, and however it is blocked, fused or divided among threads,

.. math:: |\hat s - s| \le n u \sum_i |a_i| |b_i|

(Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., section 3.1, with
``gamma_n = n u / (1 - n u)``, eq. 3.5; ``n u`` alone suffices, in any order of summation and for
every ``n``: Jeannerod and Rump, SIAM J. Matrix Anal. Appl. 34(2), 2013). A bias is one term
more. So the bound is ``(n + 2) u (|x| conv |w| + |b|)``, with ``u`` the unit roundoff of the type
sums are held in; the sum of absolute values is the same operation on absolute values, which
the reference computes.

Terms ``n`` of one element:

* value: ``prod(kernel_size) * in_channels // groups``;
* input gradient: the windows that contain the element, times ``filters // groups``, and times the
  padded positions that repeat it in a padding mode other than zeros;
* kernel gradient, bias gradient: batch times the positions that share the element.

**Complex.** Each part of a complex sum is a real sum of ``2 n`` products, so by the above it is
within ``(2 n + 2) u sum(|Re a||Re b| + |Im a||Im b|)``, or its mixed counterpart. Either sum is at
most ``sum |a||b|`` (Cauchy-Schwarz), and two parts make ``sqrt(2) (2 n + 2) u sum |a||b|``. This
covers sums in complex arithmetic too: with a product's rounding at ``sqrt(2) gamma_2`` in place
of ``u`` (Higham, Lemma 3.5) they stay within ``(n + 1 + 2 sqrt(2)) u``, which is smaller.

**Half types.** Sums are held in float32, so ``u`` above is that of float32. Each rounding to the
half type then moves a number ``v`` by at most ``u' |v| + eta`` (Higham, eq. 2.8: ``eta`` is half
the smallest subnormal). The sum is rounded once, and once more when a bias is added. In a padding
mode other than zeros, the input gradient adds up to ``m`` padded positions in the half type: ``m``
roundings, of numbers no larger than the sum of absolute values.

**The reference** is summed in float64, and its own error is within its own bound, which is added.
It matters only where the compared type is also float64 or complex128.
"""

from __future__ import annotations

from math import gcd, prod, sqrt
from typing import NamedTuple

import numpy as np

from lcmulti.conformance.calls import Inputs, ReferenceRunner, Results
from lcmulti.conformance.case import Case
from lcmulti.dtypes import DTYPES
from lcmulti.geometry.spec import LocalConvSpec

__all__ = [
    "ETA",
    "Deviation",
    "Expected",
    "bounds",
    "compare",
    "covering_windows",
    "dot_bound",
    "expect",
    "terms",
    "within",
]

ETA = {"float16": 2.0**-25, "bfloat16": 2.0**-134}
"""Half the smallest subnormal of the half types."""


class Expected(NamedTuple):
    """The results of the reference for one case.

    Parameters
    ----------
    values : Results
        In float64 or complex128.
    magnitudes : Results
        The same operation on absolute values: ``|x| conv |w| + |b|`` and so on, in float64.
    """

    values: Results
    magnitudes: Results


def expect(case: Case, inputs: Inputs) -> Expected:
    """Run the reference in double precision on the exact values of *inputs*."""
    kind = np.complex128 if np.iscomplexobj(inputs.x) else np.float64
    exact = inputs.each(lambda array: array.astype(kind))
    reference = ReferenceRunner()
    values = reference.results(case, exact)
    return Expected(values, reference.results(case, exact.each(np.abs)))


def terms(spec: LocalConvSpec, batch: int, bias_shape: tuple[int, ...] | None) -> Results:
    """Largest number of products in one element of the value and of each gradient."""
    windows = prod(map(covering_windows, spec.kernel_size, spec.strides, spec.dilation))
    outputs = batch * prod(spec.output_size)
    return Results(
        spec.terms,
        windows * (spec.filters // spec.groups) * repeats(spec),
        outputs // prod(spec.positions_shape),
        None if bias_shape is None else outputs // prod(bias_shape[:-1]),
    )


def repeats(spec: LocalConvSpec) -> int:
    """Largest number of padded positions that repeat one input element; 1 for zero padding."""
    return prod(int(np.bincount(i).max()) for _, i in spec.padding_indices())


def dot_bound(count: int, magnitude: np.ndarray, roundoff: float, is_complex: bool) -> np.ndarray:
    """Bound of a sum of *count* products and a bias, whose absolute values sum to *magnitude*."""
    factor = sqrt(2) * (2 * count + 2) if is_complex else count + 2
    return factor * roundoff * magnitude


def bounds(case: Case, expected: Expected, bias: np.ndarray | None, dtype: str) -> Results:
    """Largest distance from ``expected.values`` that rounding in *dtype* can cause.

    Parameters
    ----------
    bias : ndarray or None
        The bias of the inputs.

    Returns
    -------
    Results
        One float64 bound per element.
    """
    kind, is_complex = DTYPES[dtype], dtype.startswith("complex")
    count = terms(case.spec, case.batch, case.bias_shape)
    unit = DTYPES[kind.accumulator].roundoff
    limits = Results(
        *(
            None if m is None else dot_bound(n, m, unit, is_complex)
            for n, m in zip(count, expected.magnitudes, strict=True)
        )
    )
    if kind.is_half:
        limits = _stored(case.spec, expected, limits, bias, dtype)
    return Results(
        *(
            None if m is None else limit + dot_bound(n, m, DTYPES["float64"].roundoff, is_complex)
            for n, m, limit in zip(count, expected.magnitudes, limits, strict=True)
        )
    )


def _stored(
    spec: LocalConvSpec, expected: Expected, limits: Results, bias: np.ndarray | None, dtype: str
) -> Results:
    """Add the roundings to a half type."""
    values, magnitudes = expected
    unit, times = DTYPES[dtype].roundoff, repeats(spec)

    def rounded(limit: np.ndarray, size: np.ndarray, eta: float = ETA[dtype]) -> np.ndarray:
        total: np.ndarray = limit + unit * (np.abs(size) + limit) + eta
        return total

    forward = limits.forward
    if bias is not None:
        shaped = bias.astype(np.float64)
        if spec.data_format == "channels_first":
            shaped = np.moveaxis(shaped, -1, 0)
        forward = rounded(forward, values.forward - shaped)
    dx = limits.input_grad
    for _ in range(times):
        size = values.input_grad if times == 1 else magnitudes.input_grad
        dx = rounded(dx, size, times * ETA[dtype])
    return Results(
        rounded(forward, values.forward),
        dx,
        rounded(limits.kernel_grad, values.kernel_grad),
        None if bias is None else rounded(limits.bias_grad, values.bias_grad),
    )


class Deviation(NamedTuple):
    """The element with the largest error relative to its bound.

    Parameters
    ----------
    fraction : float
        Its error over its bound; infinite where it is not finite, 0 for an empty array.
    error : float
    place : tuple of int
        Its index.
    """

    fraction: float
    error: float
    place: tuple[int, ...]

    @property
    def ok(self) -> bool:
        """Whether every element is within its bound."""
        return self.fraction <= 1


def within(got: np.ndarray, expected: np.ndarray, limit: np.ndarray) -> bool:
    """Whether every element of *got* is within its bound; `compare` tells by how much."""
    if got.size == 0:
        return True
    error = np.abs(got.astype(expected.dtype) - expected)
    # NaN and infinities are within no bound, not even within an infinite one.
    return bool(np.isfinite(error.max()) and (error <= limit).all())


def compare(got: np.ndarray, expected: np.ndarray, limit: np.ndarray) -> Deviation:
    """Compare each element of *got* with its bound; shapes must be equal."""
    if got.size == 0:
        return Deviation(0.0, 0.0, ())
    got, expected, limit = map(np.atleast_1d, (got, expected, limit))
    error = np.abs(np.subtract(got.astype(expected.dtype), expected))
    error[~np.isfinite(error)] = np.inf  # a comparison with NaN is false
    with np.errstate(divide="ignore", invalid="ignore"):
        fraction = np.divide(error, limit)
    fraction[error == 0] = 0.0
    index = np.unravel_index(int(fraction.argmax()), fraction.shape)
    return Deviation(float(fraction[index]), float(error[index]), tuple(map(int, index)))


def covering_windows(kernel: int, stride: int, dilation: int) -> int:
    """Largest number of windows that contain one input element.

    Window ``o`` reads element ``i`` with tap ``t`` if ``o*stride + t*dilation = i``. So the taps
    that can read one element are ``stride / gcd(stride, dilation)`` apart.
    """
    return -(-kernel // (stride // gcd(stride, dilation)))
