"""Numbers that describe a filter: its length, its orientation, how far from the mean it is."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from lcmulti import plugins
from lcmulti.choosing.framework import backend_of
from lcmulti.errors import ArgumentError, ArgumentTypeError, ShapeError, described

__all__ = ["STATISTICS", "as_array", "in_two_axes", "sheet_of", "statistic", "tuning", "windows_of"]

Array = np.ndarray[Any, Any]
FOURIER = 16
"""Fewest places along each axis of a window's Fourier transform, padded with zeros."""


def as_array(kernel: Any) -> Array:
    """A kernel ``(*positions, *window, channels, filters)`` of any framework as NumPy's."""
    name, neutral = backend_of((type(kernel),), None, names=("kernel",))
    owner = plugins.load_backend(name)
    array = (
        np.asarray(kernel) if neutral else owner.to_numpy(owner.prepare((kernel, None, None))[0])
    )
    if array.ndim < 4 or array.ndim % 2 or 0 in array.shape:
        layout = "(*positions, *window, channels, filters)"
        raise ShapeError("kernel", f"shape {layout}", described(str(array.shape)))
    if not np.issubdtype(array.dtype, np.complexfloating):
        array = array.astype("float32" if array.dtype.itemsize < 8 else "float64")
    return array


def in_two_axes(array: Array) -> tuple[Array, str]:
    """A kernel of two spatial axes, and what was left out of one of three or more.

    One axis becomes a row; of further ones the middle is taken.
    """
    axes = array.ndim // 2 - 1
    if axes == 1:
        return array[None, :, None], ""
    note = ""
    while axes > 2:
        middle, tap = array.shape[0] // 2, array.shape[axes] // 2
        array = array[middle].take(tap, axes - 1)
        note, axes = f"the middle of the first axis (position {middle}, tap {tap})", axes - 1
    return array, note


def sheet_of(filters: int, sheet: Any) -> tuple[int, int]:
    """Rows and columns that a position's filters are laid on: those given, or near a square."""
    if sheet is None:
        rows = max(n for n in range(1, int(filters**0.5) + 1) if filters % n == 0)
        return rows, filters // rows
    rows, columns = sheet
    if rows * columns != filters:
        raise ArgumentError("sheet", f"(a, b) with a * b = {filters}", sheet)
    return int(rows), int(columns)


def windows_of(array: Array) -> Array:
    """``(rows, columns, filters, kh, kw, 1 or 3)``: of three channels colours, else their mean."""
    shown = array if array.shape[4] == 3 else array.mean(4, keepdims=True)
    return np.real(shown).transpose(0, 1, 5, 2, 3, 4)


def norm(array: Array) -> Array:
    """Length of each filter."""
    result: Array = np.sqrt((np.abs(array) ** 2).sum((2, 3, 4)))
    return result


def distance(array: Array) -> Array:
    """Distance of each filter to its mean over positions."""
    return norm(array - array.mean((0, 1), keepdims=True))


def tuning(array: Array) -> tuple[Array, Array]:
    """Energy at all orientations but constants, and its first moment over twice the angle."""
    windows = array.transpose(0, 1, 5, 4, 2, 3)
    places = max(FOURIER, 2 * max(windows.shape[-2:]))
    fy, fx = np.meshgrid(*[np.fft.fftfreq(places)] * 2, indexing="ij")
    turn = np.exp(2j * np.arctan2(-fy, fx))  # rows count downwards
    counted = np.hypot(fy, fx) < 0.5  # the corners would count diagonals twice over
    counted[0, 0] = False
    energy, moment = np.zeros(windows.shape[:3]), np.zeros(windows.shape[:3], complex)
    for row in range(len(windows)):  # a row of positions at a time, for transforms are large
        centred = windows[row] - windows[row].mean((-1, -2), keepdims=True)
        power = (np.abs(np.fft.fft2(centred, (places, places))) ** 2).sum(2) * counted
        energy[row], moment[row] = power.sum((-1, -2)), (power * turn).sum((-1, -2))
    return energy, moment


def orientation(array: Array) -> Array:
    """Degrees, 0 to 180, counterclockwise from horizontal, of the stripes a filter prefers.

    The mean direction of the energy of its Fourier transform, turned by 90 degrees.
    """
    result: Array = (np.degrees(np.angle(tuning(array)[1])) / 2 + 90) % 180
    return result


def selectivity(array: Array) -> Array:
    """How much of a filter's energy is at its orientation: 0 none, 1 all."""
    energy, moment = tuning(array)
    result: Array = np.abs(moment) / np.maximum(energy, np.finfo("float64").tiny)
    return result


STATISTICS: dict[str, Callable[[Array], Array]] = {
    "norm": norm,
    "orientation": orientation,
    "selectivity": selectivity,
    "distance": distance,
}
"""By name; each takes ``(rows, columns, kh, kw, channels, filters)``."""


def statistic(kernel: Any, name: Any = "norm") -> Array:
    """One number of each filter.

    Parameters
    ----------
    kernel : array
        ``(*positions, *window, channels, filters)``; of more than two axes the middle is taken.
    name : {"norm", "orientation", "selectivity", "distance"} or callable
        A function takes ``(rows, columns, kh, kw, channels, filters)``.

    Returns
    -------
    ndarray
        ``(rows, columns, filters)``.

    Raises
    ------
    ArgumentError
        If there is no such statistic, or a function returns another shape.

    Examples
    --------
    >>> import numpy as np
    >>> kernel = np.zeros((1, 1, 5, 5, 1, 2))
    >>> kernel[..., 2, :, 0, 0] = 1  # a row, and a column
    >>> kernel[..., :, 2, 0, 1] = 1
    >>> statistic(kernel, "orientation").round().ravel() % 180
    array([ 0., 90.])
    """
    array, _ = in_two_axes(as_array(kernel))
    if isinstance(name, str):
        if name not in STATISTICS:
            raise ArgumentError("statistic", f"one of {', '.join(STATISTICS)} or a function", name)
        return STATISTICS[name](array)
    if not callable(name):
        raise ArgumentTypeError("statistic", f"one of {', '.join(STATISTICS)} or a function", name)
    result = np.asarray(name(array))
    wanted = (*array.shape[:2], array.shape[-1])
    if result.shape != wanted:
        shown = described(f"{result.shape}, of {prod(result.shape)} numbers")
        raise ShapeError("statistic", f"a function that returns shape {wanted}", shown)
    return result
