"""A penalty on kernels that differ between neighbouring output positions."""

from __future__ import annotations

from functools import lru_cache
from math import prod

from lcmulti import plugins
from lcmulti.choosing.preparing import facts_of
from lcmulti.errors import ArgumentTypeError, DtypeError, ShapeError, described
from lcmulti.geometry.arguments import choice
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.operations import calling
from lcmulti.operations.neighbours import Link, cosines
from lcmulti.types import Array

__all__ = ["DISTANCES", "smoothness"]

DISTANCES = ("cosine", "squared")


def smoothness(
    kernel: Array, spec: LocalConvSpec, *, distance: str = "cosine", backend: str | None = None
) -> Array:
    """Mean distance between the kernels of neighbouring output positions, to be minimised.

    Each filter is compared with the same filter at the next position. So neighbouring positions
    learn from each other's data, and a layer whose penalty is 0 is a convolution. This is not the
    penalty of All-TNN, which lays all filters of a position side by side on one sheet: that is
    `sheet_smoothness`.

    Parameters
    ----------
    kernel : array
        ``spec.kernel_shape``.
    spec : LocalConvSpec
    distance : {"cosine", "squared"}
        ``1 - cosine`` of the two kernels of one filter, between 0 and 2 and independent of their
        scale; or their squared Euclidean distance.
    backend : str, optional
        As for `local_conv`.

    Returns
    -------
    array
        A scalar of the framework and dtype of *kernel*, differentiable in it. The mean is over
        filters, and over the pairs of positions one step apart along a spatial axis. An axis along
        which the kernel is shared has no pairs. If there are none at all, the result is 0.

    Raises
    ------
    ShapeError, DtypeError
        If *kernel* does not fit *spec*, or is neither float32 nor float64.

    Examples
    --------
    >>> import numpy as np, lcmulti
    >>> spec = lcmulti.LocalConvSpec((6, 1), filters=1, kernel_size=3)
    >>> float(lcmulti.smoothness(np.ones(spec.kernel_shape), spec))
    0.0
    """
    if not isinstance(spec, LocalConvSpec):
        raise ArgumentTypeError("spec", "a LocalConvSpec", spec)
    distance = choice("distance", distance, DISTANCES)
    key = calling.call_key("smoothness", (type(kernel),), backend)
    return calling.calls[key](kernel, (spec.positions_shape, spec.kernel_shape, distance))


def _run(
    name: str, kernel: Array, arguments: tuple[tuple[int, ...], tuple[int, ...], str]
) -> Array:
    positions, shape, distance = arguments
    owner = plugins.load_backend(name)
    facts = facts_of(owner, "kernel", kernel)
    if facts.shape != shape:
        raise ShapeError("kernel", f"shape {shape}, that of the spec", described(str(facts.shape)))
    if facts.dtype not in ("float32", "float64"):
        raise DtypeError(
            "kernel", "float32 or float64 (half types cannot tell neighbours)", facts.dtype
        )
    pairs = shape[-1] * sum(prod(positions) // size * (size - 1) for size in positions)
    if distance == "cosine" and pairs:
        return 1 - cosines(name, kernel, None, _links(positions, shape[-1], pairs))
    letters = "abcdefgh"[: len(positions)]
    every = f"{letters}{'ijklmnop'[: len(positions)]}xy"

    def total(array: Array) -> Array:
        """Sum of squares: over the window and its channels first, so that rounding stays small."""
        of_filters = owner.einsum(f"{every},{every}->{letters}y", array, array)
        return owner.einsum(f"{letters}y->", of_filters)

    result = total(kernel) * 0
    for axis, size in enumerate(positions):
        if size > 1:
            step = kernel[_part(axis, 1, size)] - kernel[_part(axis, 0, size - 1)]
            result = result + total(step)
    return result / max(pairs, 1)


@lru_cache(maxsize=256)
def _links(positions: tuple[int, ...], filters: int, pairs: int) -> tuple[Link, ...]:
    """Each filter and the same filter one position further, along each axis."""
    axes, every = range(len(positions)), (0, filters, 1)
    return tuple(
        Link(positions, tuple((int(each == axis), False) for each in axes), every, every,
             tuple(range(filters)), 1 / pairs)
        for axis in axes
        if positions[axis] > 1
    )  # fmt: skip


def _part(axis: int, start: int, stop: int) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, slice(start, stop))


calling.OPERATIONS["smoothness"] = calling.Composite(("kernel",), _run)
