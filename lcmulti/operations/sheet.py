"""The topographic penalty of All-TNN: the filters lie on a sheet, and neighbours become alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from lcmulti import plugins
from lcmulti.choosing.dispatch import check_alike
from lcmulti.choosing.preparing import facts_of
from lcmulti.errors import ArgumentError, ArgumentTypeError, DtypeError, ShapeError, described
from lcmulti.geometry.arguments import choice, integer_tuple
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.operations import calling
from lcmulti.operations.neighbours import Link, cosines
from lcmulti.types import Array

__all__ = ["circular_of", "neighbours_of", "sheet_on", "sheet_smoothness", "sides_of"]

DISTANCES = ("cosine",)


def sheet_smoothness(
    kernel: Array,
    bias: Array,
    spec: LocalConvSpec,
    *,
    sheet: Sequence[int],
    neighbours: int = 4,
    circular: bool = False,
    distance: str = "cosine",
    backend: str | None = None,
) -> Any:
    """Mean distance between neighbouring filters on a cortical sheet, to be minimised.

    The spatial loss of All-TNN (Lu, Doerig, Bosch, Krahmer, Kaiser, Cichy and Kietzmann,
    "End-to-end topographic networks as models of cortical map formation and human visual
    behaviour", arXiv 2308.09431). The filters of each position lie in a rectangle of ``a`` rows and
    ``b`` columns, with filter ``f`` at row ``f // b`` and column ``f % b``. The rectangles of all
    positions lie side by side and make one sheet of ``(rows * a, columns * b)`` filters. A filter
    is its weights with its bias appended. The mean cosine of neighbours is taken for each
    direction. The penalty is ``(1 - mean over directions) / 2``. It is 0 where all filters point
    the same way, and at most 1.

    Parameters
    ----------
    kernel : array
        ``spec.kernel_shape``, of two spatial axes.
    bias : array or None
        ``spec.bias_shape``, with 1 along axes where it is shared. None leaves the bias out. The
        bias of a transposed layer belongs to outputs, not to filters: pass None there.
    spec : LocalConvSpec
    sheet : (int, int)
        ``(a, b)`` with ``a * b == spec.filters``.
    neighbours : {4, 8}
        How many neighbours a filter has. With 4, the directions are down and right; with 8 also
        down-right and down-left. (The opposite directions have the same pairs.)
    circular : bool, default False
        Whether the first row is a neighbour of the last, and the first column of the last.
        Diagonals always end at the edges.
    distance : {"cosine"}
    backend : str, optional
        As for `local_conv`.

    Returns
    -------
    array
        A scalar of the framework and dtype of *kernel*, differentiable in *kernel* and *bias*. A
        direction that has no pair is left out; if no direction has one, the result is 0. A filter
        of zeros has cosine 0 with its neighbours, and gets no gradient. So does nearly a filter
        whose length is below 1e-12.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        If an array does not fit *spec* or is neither float32 nor float64, or if ``a * b`` is not
        the number of filters.

    See Also
    --------
    smoothness : compares each filter with the same filter at the neighbouring positions.

    Examples
    --------
    >>> import numpy as np, lcmulti
    >>> spec = lcmulti.LocalConvSpec((6, 6, 1), filters=4, kernel_size=3)
    >>> kernel = np.ones(spec.kernel_shape)
    >>> kernel[..., 1::2] = -1  # columns of the sheet take turns
    >>> float(lcmulti.sheet_smoothness(kernel, None, spec, sheet=(2, 2)))
    0.5
    """
    if not isinstance(spec, LocalConvSpec):
        raise ArgumentTypeError("spec", "a LocalConvSpec", spec)
    sides = sheet_on(spec, sheet)
    choice("distance", distance, DISTANCES)
    # Tuples of numbers alone, which PyTorch's tracer can pass on.
    plan = (spec.output_size, sides, neighbours_of(neighbours), circular_of(circular))
    key = calling.call_key("sheet_smoothness", (type(kernel), type(bias)), backend)
    return calling.calls[key](kernel, bias, (spec.kernel_shape, plan))


def sheet_on(spec: LocalConvSpec, sheet: Sequence[int]) -> tuple[int, int]:
    """Check the rows and columns of a sheet for the filters of a geometry."""
    if spec.ndim != 2:
        shown = described(f"one of {spec.ndim}")
        raise ArgumentError("spec", "a geometry of two spatial axes, which a sheet has", shown)
    return sides_of(sheet, spec.filters)


def sides_of(sheet: Sequence[int], filters: int) -> tuple[int, int]:
    """Check the rows and columns on which the filters of one position lie."""
    sides = integer_tuple("sheet", sheet, 1)
    if len(sides) != 2 or prod(sides) != filters:
        fitting = [(n, filters // n) for n in range(1, filters + 1) if filters % n == 0]
        shown = ", ".join(map(str, fitting))
        raise ArgumentError("sheet", f"(a, b) with a * b = {filters}: one of {shown}", sheet)
    return sides[0], sides[1]


def neighbours_of(value: object) -> int:
    """Check how many neighbours a filter has."""
    if isinstance(value, bool) or value not in (4, 8):
        raise ArgumentError("neighbours", "4 or 8", value)
    return 4 if value == 4 else 8


def circular_of(value: object) -> bool:
    """Check whether a sheet is closed."""
    if not isinstance(value, (bool, np.bool_)):
        raise ArgumentTypeError("circular", "True or False", value)
    return bool(value)


class _Plan(NamedTuple):
    size: tuple[int, ...]
    sheet: tuple[int, int]
    neighbours: int
    circular: bool


@lru_cache(maxsize=256)
def _links(plan: _Plan) -> tuple[Link, ...]:
    """All pairs of neighbours, weighted so that their cosines add up to the mean of directions."""
    steps = ((1, 0), (0, 1), (1, 1), (1, -1))[: plan.neighbours // 2]
    directions = [links for step in steps if (links := tuple(_towards(plan, step)))]
    found = []
    for links in directions:
        pairs = sum(link.pairs for link in links)
        found += [link._replace(weight=1 / (pairs * len(directions))) for link in links]
    return tuple(found)


def _towards(plan: _Plan, step: tuple[int, int]) -> Iterator[Link]:
    """Neighbours in one rectangle, and in two side by side, one below the other or at a corner."""
    (a, b), size = plan.sheet, plan.size
    for rows, down in _places(a, step[0]):
        for columns, across in _places(b, step[1]):
            filters = [row * b + column for row in rows for column in columns]
            further = (step[0] - down * a) * b + step[1] - across * b
            every = b if len(columns) == 1 and len(rows) > 1 else 1
            run = range(filters[0], filters[-1] + 1, every)
            first = (run.start, run.stop, every)
            second = (run.start + further, run.stop + further, every)
            chosen = tuple(run.index(f) for f in filters)
            moves = [((down, False), (across, False))]
            if plan.circular and (down, across) in ((1, 0), (0, 1)) and 0 in step:
                moves.append(((down, bool(down)), (across, bool(across))))
            for each in moves:
                link = Link(size, each, first, second, chosen, 0.0)
                if link.pairs:
                    yield link


def _places(side: int, step: int) -> Iterator[tuple[range, int]]:
    """Places along a side of a rectangle, and how many rectangles on the neighbour *step* on is."""
    if step == 0:
        yield range(side), 0
        return
    within = range(side - 1) if step > 0 else range(1, side)
    if within:
        yield within, 0
    yield (range(side - 1, side) if step > 0 else range(1)), step


def _run(
    name: str,
    kernel: Array,
    bias: Array,
    arguments: tuple[tuple[int, ...], tuple[tuple[int, ...], tuple[int, int], int, bool]],
) -> Array:
    shape, plan = arguments
    _check(name, kernel, bias, shape, plan[0])
    links = _links(_Plan(*plan))
    mean = cosines(name, kernel, bias, links)
    return (1 - mean) / 2 if links else mean


def _check(
    backend: str, kernel: Array, bias: Array, shape: tuple[int, ...], size: tuple[int, ...]
) -> None:
    owner, found = plugins.load_backend(backend), {}
    for name, array, wanted in (
        ("kernel", kernel, shape),
        ("bias", bias, (*size, shape[-1])),
    ):
        if array is None:
            if name == "kernel":
                raise ArgumentTypeError("kernel", "an array", array)
            continue
        found[name] = facts = facts_of(owner, name, array)
        given, shared = facts.shape, name == "bias"
        fits = len(given) == len(wanted) and all(
            n in ((m, 1) if shared and axis < 2 else (m,))
            for axis, (n, m) in enumerate(zip(given, wanted, strict=True))
        )
        if not fits:
            expected = f"shape {wanted}, that of the spec" + (", or 1 where shared" * shared)
            raise ShapeError(name, expected, described(str(given)))
        if facts.dtype not in ("float32", "float64"):
            wide = "float32 or float64 (half types cannot tell neighbours)"
            raise DtypeError(name, wide, facts.dtype)
    check_alike(backend, tuple(found), tuple(found.values()))


calling.OPERATIONS["sheet_smoothness"] = calling.Composite(("kernel", "bias"), _run)
