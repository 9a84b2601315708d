"""Random geometries: small ones for properties, calls with many options, and typical layers.

Most numbers of a call are small, and some are large, so that code for special sizes (7, 16, 33) is
reached sooner or later. Half of the calls are like layers in use: square windows, zero padding that
keeps the size, and tens of positions, channels and filters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from math import prod
from typing import Any, NamedTuple

import numpy as np

from lcmulti.conformance.case import Case
from lcmulti.dtypes import DTYPES
from lcmulti.geometry.shapes import window_extent

__all__ = [
    "CI",
    "KINDS",
    "NIGHTLY",
    "QUICK",
    "Examples",
    "any_call",
    "as_a_layer",
    "calls",
    "geometry",
]

KINDS = ("any", "tiled", "convolution")
MOST = 10**6
"""Largest number of products of a call, and of elements of its input, so that it is quick."""
LEAST_OF_A_LAYER = 50_000

QUICK, CI, NIGHTLY = (5, 10), (50, 200), (10_000, 2000)
"""Number of examples of each property, and number of random calls."""


class Examples(NamedTuple):
    """The number of random examples of each property in a run, and their seed.

    Parameters
    ----------
    number : int
    calls : int
        Number of random calls, all of different geometries.
    seed : int
        The same seed gives the same examples.
    """

    number: int
    calls: int
    seed: int


def geometry(seed: int, kind: str) -> Case:
    """A random small case without a bias, padded with zeros."""
    rng = np.random.default_rng((seed, KINDS.index(kind)))

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(int(n) for n in rng.integers(low, high + 1, ndim))

    ndim, groups = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    kernel, dilation, strides = each(1, 3), each(1, 2), each(1, 3)
    channels, filters = (groups * int(n) for n in rng.integers(1, 4, 2))
    batch = int(rng.integers(1, 4))
    return _case(
        rng, f"{kind}-{seed}", kind, kernel, dilation, strides, groups, channels, filters, batch
    )


def calls(seed: int) -> Iterator[tuple[Case, str]]:
    """Random cases from *seed* on, each with a dtype; every other one is in float32."""
    dtypes = tuple(DTYPES)
    for number in count(seed):
        drawn = as_a_layer(number) if number % 2 else any_call(number)
        yield drawn, "float32" if number % 4 < 2 else dtypes[number // 4 % len(dtypes)]


def as_a_layer(seed: int) -> Case:
    """A random case like a layer in use."""
    rng = np.random.default_rng((seed, 98))

    def one_of(*choices: Any) -> Any:
        return choices[int(rng.integers(len(choices)))]

    while True:
        ndim, side = one_of(1, 2, 2, 2, 3), one_of(1, 3, 3, 3, 5, 7, 9)
        stride, batch = one_of(1, 1, 1, 2, side), one_of(1, 2, 4, 8, 16, 32, 64)
        channels, filters = (
            one_of(1, 3, 8, 16, 32, 32, 64, 64, 128),
            one_of(4, 8, 16, 32, 32, 64, 64, 96, 128),
        )
        options: dict[str, Any] = {"strides": stride, "padding": one_of(side // 2, "same", "valid")}
        if rng.integers(5) == 0:  # depthwise
            filters = channels * one_of(1, 2)
            options["groups"] = channels
        size = tuple(stride * int(n) + side for n in rng.integers(3, 40 if ndim == 1 else 14, ndim))
        if rng.integers(4) == 0:
            size = size[:1] * ndim
        shape = (*size, channels)
        if rng.integers(3) == 0:
            shape, options["data_format"] = (channels, *size), "channels_first"
        shared = tuple(range(ndim)) if rng.integers(4) == 0 else ()
        bias = one_of((), (), shared, tuple(range(ndim)), None)
        case = Case(
            f"call-{seed}",
            "as a layer",
            shape,
            filters,
            (side,) * ndim,
            batch,
            shared,
            bias,
            options,
        )
        if LEAST_OF_A_LAYER <= case.products <= 2 * MOST:
            return case


def any_call(seed: int) -> Case:
    """A random case that uses most options at once."""
    rng = np.random.default_rng((seed, 99))
    while True:
        case = _with_options(rng, _heavy_tailed(rng, seed))
        if max(case.products, case.batch * prod(case.input_shape)) <= MOST:
            return case


def _heavy_tailed(rng: np.random.Generator, seed: int) -> Case:
    """Random numbers, uniform in their logarithm: each size is as likely as its double."""

    def upto(most: int) -> int:
        return int(np.exp(rng.uniform(0, np.log(most + 1))))

    kind, ndim, groups = KINDS[seed % 3], int(rng.integers(1, 4)), upto(8)
    kernel, dilation, strides = (tuple(upto(most) for _ in range(ndim)) for most in (11, 6, 9))
    channels, filters = (groups * upto(40 // groups) for _ in range(2))
    batch = upto(41) - 1
    return _case(
        rng, f"call-{seed}", kind, kernel, dilation, strides, groups, channels, filters, batch
    )


def _case(
    rng: np.random.Generator,
    name: str,
    kind: str,
    kernel: tuple[int, ...],
    dilation: tuple[int, ...],
    strides: tuple[int, ...],
    groups: int,
    channels: int,
    filters: int,
    batch: int,
) -> Case:
    """A random case of one of `KINDS`, with a little zero padding and room for windows."""
    ndim = len(kernel)
    low, high, more = (tuple(int(n) for n in rng.integers(0, 3, ndim)) for _ in range(3))
    if kind == "tiled":
        strides, dilation, low, high = kernel, (1,) * ndim, (0,) * ndim, (0,) * ndim
    extents = map(window_extent, kernel, dilation)
    # Room for at least two windows, so that a translation along every axis is possible.
    size = tuple(e + s + n for e, s, n in zip(extents, strides, more, strict=True))
    shared = {
        "any": rng.integers(0, 2, ndim),
        "tiled": rng.integers(0, 2, ndim) * rng.integers(0, 2),
        "convolution": np.ones(ndim),
    }[kind]
    options = {
        "strides": strides, "dilation": dilation, "groups": groups,
        "padding": tuple(zip(low, high, strict=True)),
    }  # fmt: skip
    axes = tuple(axis for axis in range(ndim) if shared[axis])
    return Case(name, kind, (*size, channels), filters, kernel, batch, axes, None, options)


def _with_options(rng: np.random.Generator, base: Case) -> Case:
    """Any padding mode and rule, either data format, and a bias shared along any axes."""
    ndim, options = base.spec.ndim, dict(base.options)
    mode = str(rng.choice(["zeros", "reflect", "replicate", "circular"]))
    if base.group == "any" and mode != "zeros":
        limits = [n - 1 for n in base.spec.input_size]
        pads = tuple((int(rng.integers(0, min(n, 2) + 1)), min(n, 1)) for n in limits)
        options |= {"padding_mode": mode, "padding": pads}
    elif base.group != "tiled" and rng.integers(0, 2):
        options["padding"] = str(rng.choice(["same", "keras_same", "valid"]))
    shape = base.input_shape
    if rng.integers(0, 2):
        options["data_format"] = "channels_first"
        shape = (shape[-1], *shape[:-1])
    bias = tuple(axis for axis in range(ndim) if rng.integers(0, 2))
    return replace(
        base, input_shape=shape, options=options,
        bias_shared_axes=None if rng.integers(0, 4) == 0 else bias,
    )  # fmt: skip
