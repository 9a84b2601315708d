"""Numbers that describe a filter: its length, its orientation, its distance from the mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TypeAlias

import numpy as np

from lcmulti import plugins
from lcmulti.choosing.framework import backend_of, read, readers_of
from lcmulti.errors import ArgumentError, ArgumentTypeError, ShapeError, described
from lcmulti.operations.sheet import sides_of
from lcmulti.types import Array

__all__ = [
    "STATISTICS",
    "Statistic",
    "as_array",
    "distance",
    "finite",
    "in_two_axes",
    "norm",
    "oriented",
    "sheet_of",
    "statistic",
    "tuning",
    "windows_of",
]

FOURIER = 16
"""A window is padded with zeros to at least this length for its Fourier transform."""


def as_array(kernel: Array) -> np.ndarray:
    """A kernel ``(*positions, *window, channels, filters)`` of any framework as a NumPy array."""
    try:
        name, neutral = backend_of((type(kernel),), None, names=("kernel",))
    except ArgumentTypeError:
        if not hasattr(kernel, "__array__"):
            raise
        return as_array(np.asarray(kernel))
    (kernel,) = read((kernel,), readers_of((type(kernel),)))
    array = np.asarray(kernel) if neutral else plugins.load_backend(name).to_numpy(kernel)
    if array.ndim < 4 or array.ndim % 2 or 0 in array.shape:
        layout = "(*positions, *window, channels, filters)"
        raise ShapeError("kernel", f"shape {layout}", described(str(array.shape)))
    if not np.issubdtype(array.dtype, np.complexfloating):
        array = array.astype("float32" if array.dtype.itemsize < 8 else "float64")
    return array


def in_two_axes(array: np.ndarray) -> tuple[np.ndarray, str]:
    """A kernel of two spatial axes, and a note on what was left out of one of three or more.

    One axis becomes a single row. Of a third or further axis, only the middle is taken.
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


def sheet_of(filters: int, sheet: Sequence[int] | None) -> tuple[int, int]:
    """Rows and columns for a position's filters: those given, or as square as possible."""
    if sheet is None:
        rows = max(n for n in range(1, int(filters**0.5) + 1) if filters % n == 0)
        return rows, filters // rows
    return sides_of(sheet, filters)


def windows_of(array: np.ndarray) -> np.ndarray:
    """``(rows, columns, filters, kh, kw, 1 or 3)``: colours, or the mean over channels."""
    shown = array if array.shape[4] == 3 else array.mean(4, keepdims=True)
    return np.real(shown).transpose(0, 1, 5, 2, 3, 4)


def finite(array: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The weights with 0 for those that are not finite, and what to say of weights so shown."""
    said, good = [], np.isfinite(array)
    if np.iscomplexobj(array):
        said.append("of complex weights, the real part is shown")
    if wrong := array.size - np.count_nonzero(good):
        said.append(f"{wrong:,} weights are not finite, and shown as 0")
        array = np.where(good, array, 0)
    return array, said


def norm(array: np.ndarray) -> np.ndarray:
    """Length of each filter."""
    result: np.ndarray = np.sqrt((np.abs(array) ** 2).sum((2, 3, 4)))
    return result


def distance(array: np.ndarray) -> np.ndarray:
    """Distance of each filter from its mean over positions."""
    return norm(array - array.mean((0, 1), keepdims=True))


def tuning(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energy at all orientations but the constant, and its first moment over twice the angle."""
    windows = array.transpose(0, 1, 5, 4, 2, 3)
    places = max(FOURIER, 2 * max(windows.shape[-2:]))
    fy, fx = np.meshgrid(*[np.fft.fftfreq(places)] * 2, indexing="ij")
    turn = np.exp(2j * np.arctan2(-fy, fx))  # rows count downwards
    counted = np.hypot(fy, fx) < 0.5  # without the corners, which would give diagonals more weight
    counted[0, 0] = False
    energy, moment = np.zeros(windows.shape[:3]), np.zeros(windows.shape[:3], complex)
    for row in range(len(windows)):  # a row of positions at a time, because transforms are large
        centred = windows[row] - windows[row].mean((-1, -2), keepdims=True)
        power = (np.abs(np.fft.fft2(centred, (places, places))) ** 2).sum(2) * counted
        energy[row], moment[row] = power.sum((-1, -2)), (power * turn).sum((-1, -2))
    return energy, moment


def oriented(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`orientation` and `selectivity`, which cost as much together as each alone."""
    energy, moment = tuning(array)
    degrees = (np.degrees(np.angle(moment)) / 2 + 90) % 180
    return degrees, np.abs(moment) / np.maximum(energy, np.finfo("float64").tiny)


def orientation(array: np.ndarray) -> np.ndarray:
    """Orientation of the stripes a filter prefers: degrees counterclockwise from horizontal.

    Between 0 and 180: the mean direction of the energy of its Fourier transform, turned by 90.
    """
    return oriented(array)[0]


def selectivity(array: np.ndarray) -> np.ndarray:
    """How far a filter prefers its orientation: 0 if all are alike, 1 if it has only this one.

    The length of the mean direction of its energy, each counted at twice its angle.
    """
    return oriented(array)[1]


Statistic: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""A number of each filter of ``(rows, columns, kh, kw, channels, filters)``."""

STATISTICS: dict[str, Statistic] = {
    "norm": norm,
    "orientation": orientation,
    "selectivity": selectivity,
    "distance": distance,
}
"""Every statistic by its name."""


def statistic(kernel: Array, name: str | Statistic = "norm") -> np.ndarray:
    """Compute one number of each filter.

    Parameters
    ----------
    kernel : array
        ``(*positions, *window, channels, filters)``; of a third or further axis, the middle.
    name : {"norm", "orientation", "selectivity", "distance"} or callable
        ``"norm"`` is the length of a filter; ``"orientation"`` that of the stripes it prefers, in
        degrees counterclockwise from horizontal, from 0 to 180; ``"selectivity"`` how far it
        prefers them, from 0 to 1; ``"distance"`` the length of its difference from the mean of
        this filter over positions. A function takes
        ``(rows, columns, kh, kw, channels, filters)`` and returns ``(rows, columns, filters)``.

    Returns
    -------
    ndarray
        ``(rows, columns, filters)``.

    Raises
    ------
    ArgumentError
        If there is no such statistic; (`ShapeError`) if *kernel* has another number of axes, or a
        function returns another shape.

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
            raise ArgumentError("name", f"one of {', '.join(STATISTICS)} or a function", name)
        return STATISTICS[name](array)
    if not callable(name):
        raise ArgumentTypeError("name", f"one of {', '.join(STATISTICS)} or a function", name)
    result = np.asarray(name(array))
    wanted = (*array.shape[:2], array.shape[-1])
    if result.shape != wanted:
        shown = described(f"{result.shape}, of {prod(result.shape)} numbers")
        raise ShapeError("name", f"a function that returns shape {wanted}", shown)
    return result
