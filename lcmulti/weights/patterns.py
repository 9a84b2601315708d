"""Axis patterns such as ``"1 f o (k c)"``, by which `lcmulti.weights.layouts` describes arrays.

Letters stand for groups of axes: ``o`` output positions, ``k`` taps, ``c`` channels, ``f`` filters.
Parentheses join axes into one, and ``1`` is an axis of length 1.
"""

from __future__ import annotations

import re
from math import prod

import numpy as np

from lcmulti.geometry.spec import LocalConvSpec

__all__ = ["packed", "shape_of", "unpacked"]


def _sizes(spec: LocalConvSpec) -> dict[str, tuple[int, ...]]:
    """Lengths of the axes that each letter stands for."""
    channels = spec.in_channels // spec.groups
    return {
        "o": spec.positions_shape,
        "k": spec.kernel_size,
        "c": (channels,),
        "f": (spec.filters,),
        "1": (1,),
    }


def _groups(pattern: str) -> list[str]:
    """``"1 f o (k c)"`` as ``["1", "f", "o", "(k c)"]``."""
    return re.findall(r"\([^)]*\)|\S", pattern)


def shape_of(pattern: str, spec: LocalConvSpec) -> tuple[int, ...]:
    """Shape of an array with this pattern."""
    sizes = _sizes(spec)
    shape: list[int] = []
    for group in _groups(pattern):
        lengths = [n for letter in group.strip("()").split() for n in sizes[letter]]
        shape += [prod(lengths)] if group.startswith("(") else lengths
    return tuple(shape)


def _letters(pattern: str) -> list[str]:
    return [letter for letter in pattern if letter in "okcf"]


def _axes_of(letters: list[str], spec: LocalConvSpec) -> dict[str, list[int]]:
    """The axes of each letter, after joined axes are split."""
    sizes, axes, start = _sizes(spec), {}, 0
    for letter in letters:
        axes[letter] = list(range(start, start + len(sizes[letter])))
        start += len(sizes[letter])
    return axes


def unpacked(stored: np.ndarray, pattern: str, spec: LocalConvSpec) -> np.ndarray:
    """*stored* with joined axes split and in lcmulti's order; a view."""
    sizes, letters = _sizes(spec), _letters(pattern)
    apart = stored.reshape([n for letter in letters for n in sizes[letter]])
    axes = _axes_of(letters, spec)
    ours = [axis for letter in "okcf" if letter in axes for axis in axes[letter]]
    return apart.transpose(ours)


def packed(ours: np.ndarray, pattern: str, spec: LocalConvSpec) -> np.ndarray:
    """The inverse of `unpacked`; a new array."""
    letters = _letters(pattern)
    axes = _axes_of([letter for letter in "okcf" if letter in letters], spec)
    theirs = ours.transpose([axis for letter in letters for axis in axes[letter]])
    return np.array(theirs, order="C").reshape(shape_of(pattern, spec))
