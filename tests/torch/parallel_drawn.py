"""Geometries drawn at random, divided over three ranks and checked as in `parallel_cases`."""

from __future__ import annotations

from functools import partial

import numpy as np
from parallel_cases import FIRST, LAST, OTHER_DTYPES, require_as_whole

from lcmulti.conformance.case import Case
from lcmulti.errors import ArgumentError
from lcmulti.geometry.padding import PADDING_MODES

MANY = 20


def drawn(seed):
    """Draw a case of any kind, its dtype, and the axis that is divided."""
    rng = np.random.default_rng(seed)

    def pick(*options):
        return options[rng.integers(len(options))]

    while True:
        axes, groups, mode = pick(1, 2, 2, 3), pick(1, 1, 2), pick(*PADDING_MODES)
        size = [int(rng.integers(1, 18 if axes == 1 else 9)) for _ in range(axes)]
        taps, strides, dilation = (
            tuple(int(rng.integers(1, most + 1)) for _ in range(axes)) for most in (5, 4, 2)
        )
        padding = pick("valid", "same", tuple((pick(0, 1, 2), pick(0, 1, 3)) for _ in range(axes)))
        axis, layout = int(rng.integers(axes)), pick(LAST, FIRST)
        channels = 2 * groups
        shape = (*size, channels) if layout is LAST else (channels, *size)
        options = dict(padding=padding, padding_mode=mode, strides=strides, dilation=dilation)
        shared = pick((), (), (), tuple(range(axes)))
        case = Case(
            f"drawn {seed}", "parallel", shape, 3 * groups, taps, pick(1, 3), shared,
            pick(None, (), shared), options | layout | dict(groups=groups),
        )  # fmt: skip
        try:
            if case.spec.input_size[axis] > 1:
                return case, pick("float32", *OTHER_DTYPES), axis
        except ArgumentError:
            continue  # such as a window that does not fit: draw another


def check_drawn(seed, rank):
    case, dtype, axis = drawn(seed)
    try:
        require_as_whole(case, dtype, (axis,), rank)
    except Exception as error:
        raise AssertionError(f"{case}, {dtype}, axis {axis}") from error


def checks(ranks):
    return {f"drawn: {seed}": partial(check_drawn, seed) for seed in range(MANY)}
