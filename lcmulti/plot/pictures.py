"""The pictures, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lcmulti.errors import ArgumentError, ArgumentTypeError, MissingExtraError, described
from lcmulti.geometry.arguments import integer, integer_tuple
from lcmulti.geometry.shapes import window_extent
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plot.statistics import (
    Statistic,
    as_array,
    finite,
    in_two_axes,
    oriented,
    sheet_of,
    statistic,
    windows_of,
)
from lcmulti.types import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["mosaic", "receptive_field", "statistic_map", "window_at"]

MOST_PIXELS = 2000
"""Weights along each side of a mosaic; of larger layers, only some positions are shown."""


def new_axes(ax: Axes | None = None) -> Axes:
    """The axes to draw on: those that are given, or those of a new figure.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    if ax is not None:
        return ax
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            "lcmulti.plot needs matplotlib; install it with: pip install 'lcmulti[report]'"
        ) from error
    return Figure(figsize=(7, 6), layout="constrained").add_subplot()


def mosaic(
    kernel: Array,
    *,
    sheet: Sequence[int] | None = None,
    ax: Axes | None = None,
    most: int = MOST_PIXELS,
) -> Axes:
    """Show the filters of every position, side by side in one rectangle for each position.

    Each filter is scaled to its own largest weight. Three channels are shown as colours. Of any
    other number of channels, the mean is shown.

    Parameters
    ----------
    kernel : array
        ``(*positions, *window, channels, filters)``.
    sheet : (int, int), optional
        Rows and columns to lay the filters of one position on. None: as square as possible.
    ax : matplotlib.axes.Axes, optional
        None makes a new figure, which is ``ax.figure`` of the result.
    most : int
        Weights along a side. Of a larger layer, only every second (third, ...) position is shown,
        and the title says so.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ArgumentError
        If *kernel* has another number of axes (`ShapeError`), or *sheet* has not one place for
        each filter.
    MissingExtraError
        If matplotlib is not installed.
    """
    array, note = in_two_axes(as_array(kernel))
    rows, columns, kh, kw, _, filters = array.shape
    a, b = sheet_of(filters, sheet)
    most = integer("most", most, 1)
    step = max(-(-rows * a * (kh + 1) // most), -(-columns * b * (kw + 1) // most), 1)
    array, said_of_weights = finite(array[::step, ::step])
    shown = windows_of(array)
    image = tiles(shown, (a, b))
    ax = new_axes(ax)
    ax.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    said = [f"{rows} x {columns} positions, {filters} filters on {a} x {b}"]
    if step > 1:
        said.append(f"every {_ordinal(step)} position is shown")
    said += [each for each in (note, *said_of_weights) if each]
    ax.set_title("; ".join(said), fontsize="medium")
    return ax


def tiles(shown: np.ndarray, sheet: tuple[int, int]) -> np.ndarray:
    """``(rows, columns, filters, kh, kw, colours)`` as an image, white lines between filters."""
    rows, columns, _, kh, kw, colours = shown.shape
    scale = np.abs(shown).max((3, 4, 5), keepdims=True)
    grey = 0.5 + 0.5 * shown / np.where(scale > 0, scale, 1)
    framed = np.ones((rows, columns, *sheet, kh + 1, kw + 1, colours))
    framed[:, :, :, :, :kh, :kw] = grey.reshape(rows, columns, *sheet, kh, kw, colours)
    image = framed.transpose(0, 2, 4, 1, 3, 5, 6)
    image = image.reshape(rows * sheet[0] * (kh + 1), columns * sheet[1] * (kw + 1), colours)
    return image if colours == 3 else image[..., 0]


def statistic_map(
    kernel: Array,
    name: str | Statistic = "norm",
    *,
    sheet: Sequence[int] | None = None,
    filter: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Show one number of each filter, over positions or over the sheet of all filters.

    Parameters
    ----------
    kernel : array
        ``(*positions, *window, channels, filters)``.
    name : str or callable
        As for `statistic`. Orientations are shown in the colours of a circle; a filter that is
        less selective is paler.
    sheet : (int, int), optional
        Rows and columns to lay the filters of one position on: the map shows all filters. None:
        the map has one number for each position.
    filter : int, optional
        Show the filter of this index, counted from 0; not with a *sheet*. None shows the mean over
        filters. The mean of orientations is that of the energy of all filters, and is paler where
        the filters of a position differ.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        The axes, with a colour bar.

    Raises
    ------
    ArgumentError
        As for `statistic` and `mosaic`; if there is no such *filter*, or a *sheet* beside it.
    MissingExtraError
        If matplotlib is not installed.
    """
    if sheet is not None and filter is not None:
        raise ArgumentError("filter", "None with a sheet, which shows all filters", filter)
    if name == "orientation":
        values, strength = oriented(in_two_axes(as_array(kernel))[0])
    else:
        values = statistic(kernel, name)
        strength = np.ones(values.shape)
    rows, columns, filters = values.shape
    if sheet is not None:
        a, b = sheet_of(filters, sheet)
        values, strength = (
            each.reshape(rows, columns, a, b).transpose(0, 2, 1, 3).reshape(rows * a, columns * b)
            for each in (values, strength)
        )
    elif filter is not None:
        number = integer("filter", filter, 0)
        if number >= filters:
            raise ArgumentError("filter", f"between 0 and {filters - 1}", filter)
        values, strength = values[..., number], strength[..., number]
    elif name == "orientation":
        moment = (strength * np.exp(2j * np.radians(values))).mean(-1)
        values, strength = np.degrees(np.angle(moment)) / 2 % 180, np.abs(moment)
    else:
        values, strength = values.mean(-1), strength.mean(-1)
    ax = new_axes(ax)
    circle = {"cmap": "hsv", "vmin": 0, "vmax": 180} if name == "orientation" else {}
    if circle:
        circle["alpha"] = 0.15 + 0.85 * strength / max(strength.max(), 1e-12)
    drawn = ax.imshow(values, interpolation="nearest", **circle)
    label = name if isinstance(name, str) else getattr(name, "__name__", "statistic")
    ax.figure.colorbar(drawn, ax=ax, label="orientation (degrees)" if circle else label)
    over = "the sheet" if sheet is not None else f"{rows} x {columns} positions"
    ax.set_title(f"{label} over {over}", fontsize="medium")
    return ax


def receptive_field(
    spec: LocalConvSpec, position: tuple[int, ...], *, ax: Axes | None = None
) -> Axes:
    """Show the inputs in the window of one output position.

    Parameters
    ----------
    spec : LocalConvSpec
        A geometry of one or two spatial axes. For that of a transposed layer, the picture shows the
        outputs that one input position contributes to.
    position : tuple of int
        An output position, counted from 0 along each axis.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        The axes. Taps are dots; dots of taps in the padding are hollow.

    Raises
    ------
    ArgumentError
        If *spec* has three or more spatial axes, or no such *position*.
    MissingExtraError
        If matplotlib is not installed.
    """
    if not isinstance(spec, LocalConvSpec):
        raise ArgumentTypeError("spec", "a LocalConvSpec", spec)
    if spec.ndim > 2:
        shown = described(f"one of {spec.ndim}")
        raise ArgumentError("spec", "a geometry of one or two spatial axes", shown)
    windows = window_at(spec, position)
    ax = new_axes(ax)
    from matplotlib.patches import Rectangle

    size = spec.input_size if spec.ndim == 2 else (1, *spec.input_size)
    (top, bottom), (left, right) = windows if spec.ndim == 2 else ((0, 0), *windows)
    ax.add_patch(Rectangle((-0.5, -0.5), size[1], size[0], facecolor="0.93", edgecolor="0.5"))
    corner, extent = (left - 0.5, top - 0.5), (right - left + 1, bottom - top + 1)
    ax.add_patch(Rectangle(corner, *extent, facecolor="C0", alpha=0.3))
    step = spec.dilation if spec.ndim == 2 else (1, *spec.dilation)
    ys, xs = np.meshgrid(range(top, bottom + 1, step[0]), range(left, right + 1, step[1]))
    inside = (ys >= 0) & (ys < size[0]) & (xs >= 0) & (xs < size[1])
    ax.scatter(xs[inside], ys[inside], 12, color="C0")
    ax.scatter(xs[~inside], ys[~inside], 12, facecolors="none", edgecolors="C0")
    ax.set_xlim(min(left, 0) - 1, max(right + 1, size[1]))
    ax.set_ylim(max(bottom + 1, size[0]), min(top, 0) - 1)
    ax.set_aspect("equal")
    where = ", ".join(map(str, position))
    ax.set_title(f"position ({where}) on an input of {_by(spec.input_size)}", fontsize="medium")
    return ax


def window_at(spec: LocalConvSpec, position: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """First and last place of the window along each axis; below 0 it is in the padding."""
    place = integer_tuple("position", position, 0)
    if len(place) != spec.ndim:
        raise ArgumentError("position", f"{spec.ndim} integers", position)
    if any(p >= n for p, n in zip(place, spec.output_size, strict=True)):
        raise ArgumentError("position", f"one of the output {spec.output_size}", position)
    starts = (p * s - low for p, s, (low, _) in zip(place, spec.strides, spec.padding, strict=True))
    return tuple(
        (start, start + window_extent(k, d) - 1)
        for start, k, d in zip(starts, spec.kernel_size, spec.dilation, strict=True)
    )


def _by(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")
