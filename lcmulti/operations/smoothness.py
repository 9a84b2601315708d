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
TINY = 1e-24
"""Added to squared lengths, so that the cosine of a kernel of zeros is 0 and its gradient finite.
The gradient has this to the power of -1.5, which must fit float32."""


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
    links = _links(positions, shape[-1]) if distance == "cosine" else ()
    if links:
        return 1 - cosines(owner, kernel, None, links)
    letters = "abcdefgh"[: len(positions)]
    weights = f"{letters}{'ijklmnop'[: len(positions)]}x"

    def inner(a: Array, b: Array) -> Array:
        """Sum over the window and its channels: ``(*positions, filters)``."""
        return owner.einsum(f"{weights}y,{weights}y->{letters}y", a, b)

    def total(array: Array) -> Array:
        return owner.einsum(f"{letters}y->", array)

    norms = inner(kernel, kernel)
    result, pairs = total(norms) * 0, 0
    for axis, size in enumerate(positions):
        if size == 1:
            continue
        before, after = (_part(axis, 0, size - 1), _part(axis, 1, size))
        if distance == "cosine":
            product = inner(kernel[before], kernel[after])
            apart = 1 - product * (norms[before] * norms[after] + TINY) ** -0.5
        else:
            step = kernel[after] - kernel[before]
            apart = inner(step, step)
        result = result + total(apart)
        pairs += prod(positions) // size * (size - 1)
    return result / max(pairs * shape[-1], 1)


@lru_cache(maxsize=256)
def _links(positions: tuple[int, ...], filters: int) -> tuple[Link, ...]:
    """Each filter and the same filter one position further, along each of two axes."""
    if len(positions) != 2:
        return ()
    pairs = sum(prod(positions) // size * (size - 1) for size in positions)
    every = (0, filters, 1)
    return tuple(
        Link(positions, ((step, False), (1 - step, False)), every, every,
             tuple(range(filters)), 1 / (pairs * filters))
        for step, size in zip((1, 0), positions, strict=True)
        if size > 1
    )  # fmt: skip


def _part(axis: int, start: int, stop: int) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, slice(start, stop))


calling.OPERATIONS["smoothness"] = calling.Composite(("kernel",), _run)
