"""Low-rank kernels: the kernel of each output position is a mixture of a few shared kernels.

Elsayed, Ramachandran, Shlens and Kornblith, "Revisiting spatial invariance with low-rank local
connectivity" (ICML 2020, arXiv 2002.02959), equation 2, with fixed combining weights.
"""

from __future__ import annotations

from math import prod
from typing import Any

from lcmulti import plugins
from lcmulti.choosing.preparing import prepare, prepare_alike
from lcmulti.dtypes import DTYPES
from lcmulti.errors import ArgumentError, ShapeError, described
from lcmulti.geometry.of_call import check_positions
from lcmulti.operations import calling
from lcmulti.operations.local_conv import ArrayT
from lcmulti.plugins.contract import Problem
from lcmulti.types import Array, Padding, Sizes

__all__ = ["local_conv_low_rank", "low_rank_kernel"]

LETTERS = "abcdefgh"
LOCAL_COST, KERNEL_COST = 2, 48
"""Cost of one weight, in units of a product of an ordinary convolution: of its product with one
sample where weights differ between positions, and of forming the weight and its gradient once.
Measured by ``asv_benches/low_rank.py`` on CPUs."""


def low_rank_kernel(basis: Array, coefficients: Array, *, backend: str | None = None) -> Array:
    r"""The full kernel of a low-rank kernel, ``sum over r of coefficients[o, r] * basis[r]``.

    Parameters
    ----------
    basis : array
        ``(rank, 1.., *kernel_size, in_channels // groups, filters)``: *rank* kernels of an
        ordinary convolution, with a 1 for each output axis.
    coefficients : array
        ``(*output_size, rank)``, with 1 along axes where they are shared.
    backend : str, optional
        As for `local_conv`.

    Returns
    -------
    array
        ``(*output_size, *kernel_size, in_channels // groups, filters)``.

    Raises
    ------
    ShapeError
        If the ranks or the sizes do not match.
    """
    key = calling.call_key("low_rank_kernel", (type(basis), type(coefficients)), backend)
    return calling.calls[key](basis, coefficients, ())


def local_conv_low_rank(
    x: ArrayT,
    basis: Array,
    coefficients: Array,
    bias: Array | None = None,
    *,
    strides: Sizes = 1,
    padding: Padding = "valid",
    padding_mode: str = "zeros",
    dilation: Sizes = 1,
    groups: int = 1,
    data_format: str | None = None,
    backend: str | None = None,
    implementation: str = "auto",
) -> ArrayT:
    """`local_conv` with a low-rank kernel. The full kernel is formed only where that is cheaper.

    The result is that of ``local_conv(x, low_rank_kernel(basis, coefficients), bias)``. Where the
    rank is small compared with the batch, or the full kernel would exceed ``max_workspace``, it is
    computed as the sum of *rank* ordinary convolutions, each times its coefficients.

    Parameters
    ----------
    x, bias : array
        As for `local_conv`.
    basis, coefficients : array
        As for `low_rank_kernel`.
    strides, padding, padding_mode, dilation, groups, data_format, backend
        As for `local_conv`.
    implementation : str, default ``"auto"``
        As for `local_conv`; it applies to whichever of the two is computed.

    Raises
    ------
    LcmultiError
        As `local_conv`.

    Examples
    --------
    >>> import numpy as np, lcmulti
    >>> x = np.ones((2, 5, 3), "float32")
    >>> basis, coefficients = np.ones((2, 1, 2, 3, 7), "float32"), np.ones((4, 2), "float32")
    >>> lcmulti.local_conv_low_rank(x, basis, coefficients).shape
    (2, 4, 7)
    """
    arguments = (strides, padding, padding_mode, dilation, groups, data_format, implementation)
    kinds = (type(x), type(basis), type(coefficients), type(bias))
    key = calling.call_key("local_conv_low_rank", kinds, backend)
    y: ArrayT = calling.calls[key](x, basis, coefficients, bias, arguments)
    return y


def _run(
    name: str,
    x: Array,
    basis: Array,
    coefficients: Array,
    bias: Array,
    arguments: tuple[object, ...],
) -> Array:
    owner = plugins.load_backend(name)
    (x, basis, coefficients), (_, of_basis, mixed) = prepare_alike(
        name, ("x", "basis", "coefficients"), (x, basis, coefficients)
    )
    mixed_shape = mixed.shape
    axes, rank = axes_and_rank(of_basis.shape, mixed_shape)
    each = [basis[r] for r in range(rank)]
    try:
        plan, arrays = prepare(name, x, each[0], bias, arguments)
    except ArgumentError as error:
        raise error.about("basis" if error.argument == "kernel" else error.argument) from None
    spec = plan.spec
    check_positions("coefficients", mixed_shape[:-1], mixed_shape, spec.output_size, spec)
    if _is_cheaper_formed(plan.problem, rank):
        kernel = _form(name, basis, coefficients, ())
        plan, arrays = prepare(name, x, kernel, bias, arguments)
        return plan.call(*arrays)
    x, _, bias = arrays
    total: Any = None
    for r in range(rank):
        _, arrays = prepare(name, x, each[r], None, arguments)
        y = plan.call(*arrays)
        factor = coefficients[(*(slice(None),) * axes, r)]  # (*output_size,)
        if not plan.channels_first:
            factor = factor[..., None]
        total = y * factor if total is None else total + y * factor
    return total if bias is None else calling.add_bias(plan, owner, total, bias)


def _is_cheaper_formed(problem: Problem, rank: int) -> bool:
    spec, dtype = problem.spec, DTYPES[problem.dtype]
    if dtype.is_half:  # in a half type, the sum over the rank would be rounded after every term
        return True
    kernel = prod(spec.output_size) * prod(spec.kernel_size) * spec.filters
    kernel *= spec.in_channels // spec.groups
    if kernel * dtype.itemsize > problem.resources.max_workspace:
        return False
    return problem.batch is None or rank * problem.batch > LOCAL_COST * problem.batch + KERNEL_COST


def _form(name: str, basis: Array, coefficients: Array, arguments: tuple[object, ...]) -> Array:
    owner = plugins.load_backend(name)
    (basis, coefficients), (of_basis, mixed) = prepare_alike(
        name, ("basis", "coefficients"), (basis, coefficients)
    )
    axes, _ = axes_and_rank(of_basis.shape, mixed.shape)
    positions, taps = LETTERS[:axes], "ijklmnop"[:axes]
    basis = basis[(slice(None), *(0,) * axes)]  # LiteRT, too, must see a product of matrices
    return owner.einsum(f"{positions}r,r{taps}xy->{positions}{taps}xy", coefficients, basis)


def axes_and_rank(basis: tuple[Array, ...], coefficients: tuple[Array, ...]) -> tuple[int, int]:
    """Number of spatial axes and rank, from the shapes of a basis and its coefficients."""
    axes = len(coefficients) - 1
    if axes < 1 or len(basis) != 2 * axes + 3 or any(n != 1 for n in basis[1 : axes + 1]):
        layout = "(rank, 1.., *kernel_size, in_channels // groups, filters)"
        raise ShapeError(
            "basis", f"shape {layout} with {axes} axes of length 1", described(str(basis))
        )
    if basis[0] != coefficients[-1]:
        expected = f"{basis[0]} in its last axis, the rank of basis"
        raise ShapeError("coefficients", expected, described(f"shape {coefficients}"))
    return axes, basis[0]


calling.OPERATIONS["low_rank_kernel"] = calling.Composite(("basis", "coefficients"), _form)
calling.OPERATIONS["local_conv_low_rank"] = calling.Composite(
    ("x", "basis", "coefficients", "bias"), _run
)
