"""One self-contained HTML page. Pointing at a position shows its filters and its window."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from html import escape
from importlib import resources
from typing import Any

import numpy as np

from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plot.pictures import window_at
from lcmulti.plot.statistics import (
    as_array,
    distance,
    finite,
    in_two_axes,
    norm,
    sheet_of,
    tuning,
    windows_of,
)
from lcmulti.types import Array

__all__ = ["page"]

MOST_BYTES = 3 * 2**20
"""Largest number of bytes of weights and statistics; a weight is one, before base 64."""

STATISTICS_BYTES = 32
"""About so many bytes take the statistics of a position."""

MOST_SIDE = 2048
"""Most positions along a side of the map, each of which has four pixels or more."""


def page(
    kernel: Array, spec: LocalConvSpec | None = None, *, name: str = "",
    sheet: Sequence[int] | None = None,
    transposed: bool = False, most: int = MOST_BYTES,
) -> str:  # fmt: skip
    """The page of one layer.

    Parameters
    ----------
    kernel : array
        ``(*positions, *window, channels, filters)``.
    spec : LocalConvSpec, optional
        Without it, or with one of three or more axes, no window is shown on the input.
    name : str
        Name of the layer.
    sheet : (int, int), optional
        Rows and columns to lay the filters of one position on. None: as square as possible.
    transposed : bool, default False
        Whether the layer is transposed, so that *spec* is that of its adjoint.
    most : int
        Bytes of weights and statistics. For larger layers, and for more than 2,048 positions along
        an axis, some positions are left out, and the page says so.

    Returns
    -------
    str
        HTML that loads no other file.

    Raises
    ------
    ArgumentError
        If *kernel* has another number of axes (`ShapeError`), or *sheet* has not one place for
        each filter.
    """
    array, note = in_two_axes(as_array(kernel))
    notes = [note] if note else []
    rows, columns, kh, kw, channels, filters = array.shape
    if channels not in (1, 3):
        notes.append(f"each filter is the mean of its {channels} channels")
    colours = 3 if channels == 3 else 1
    step = _step(rows, columns, filters * kh * kw * colours + STATISTICS_BYTES, most)
    if step > 1:
        notes.append(f"positions are thinned: one of {step} along each axis")
    array, said_of_weights = finite(array[::step, ::step])
    notes += said_of_weights
    shown = windows_of(array)
    scale = np.abs(shown).max((3, 4, 5), keepdims=True)
    bytes_ = np.round(127.5 + 127.5 * shown / np.where(scale > 0, scale, 1)).astype("uint8")
    data = {
        "name": name, "rows": shown.shape[0], "columns": shown.shape[1], "step": step,
        "sheet": sheet_of(filters, sheet), "window": [kh, kw], "colours": colours,
        "statistics": {k: _rounded(v) for k, v in _over_filters(array).items()},
        "transposed": transposed, "field": _field(spec, shown.shape[:2], step),
    }  # fmt: skip
    text = resources.files("lcmulti.plot").joinpath("page.html").read_text("utf-8")
    # A closing tag would end the script, even within a string.
    shown_data = json.dumps(data).replace("<", "\\u003c")
    title = f"{name or 'a layer'}: {rows} x {columns} positions, {filters} filters"
    values = {
        "@TITLE@": escape(title), "@NOTES@": escape(". ".join(notes)), "@DATA@": shown_data,
        "@WEIGHTS@": base64.b64encode(bytes_.tobytes()).decode(),
    }  # fmt: skip
    # All at once: a name may contain a mark.
    return re.sub("|".join(values), lambda mark: values[mark[0]], text)


def _step(rows: int, columns: int, bytes_each: int, most: int) -> int:
    """The least step at which positions are few enough along a side, and take *most* bytes."""
    longest = max(rows, columns)
    step = max(-(-longest // MOST_SIDE), 1)
    while step < longest and -(-rows // step) * -(-columns // step) * bytes_each > most:
        step += 1
    return step


def _over_filters(array: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of each position: the mean over filters; of orientations, the mean direction."""
    energy, moment = tuning(array)
    length = np.abs(moment) / np.maximum(energy, np.finfo("float64").tiny)
    directions = (length * np.exp(1j * np.angle(moment))).mean(-1)
    return {
        "norm": norm(array).mean(-1),
        "orientation": (np.degrees(np.angle(directions)) / 2 + 90) % 180,
        "selectivity": length.mean(-1),
        "distance": distance(array).mean(-1),
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{v:.4g}") for v in np.nan_to_num(values).ravel()]


def _field(spec: LocalConvSpec | None, shown: tuple[int, int], step: int) -> Any:
    """Size of the input, and first and last row of the window of each position along each axis."""
    if spec is None or spec.ndim > 2:
        return None
    size = spec.input_size if spec.ndim == 2 else (1, *spec.input_size)
    ranges = []
    for axis, count in enumerate(shown):
        if spec.ndim == 1 and axis == 0:
            ranges.append([(0, 0)] * count)
            continue
        own = axis - (2 - spec.ndim)
        places = []
        for place in range(count):
            position = [0] * spec.ndim
            position[own] = min(place * step, spec.output_size[own] - 1)
            places.append(window_at(spec, tuple(position))[own])
        ranges.append(places)
    return {"size": size, "rows": ranges[0], "columns": ranges[1]}
