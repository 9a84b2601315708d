"""The definition of correct: forward and gradients in plain NumPy, written to be read.

Each function walks the taps of the window. At one tap, every output position sees one input
element per channel, and the operation is a small matrix product at each position. Arrays are
channels last; ``spec`` is as an implementation receives it (`LocalConvSpec.computed`).

Names in the comments: ``O`` output positions, ``N`` batch, ``G`` groups, ``C`` channels and
``F`` filters of one group.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lcmulti.dtypes import DTYPES, name_of
from lcmulti.geometry.spec import LocalConvSpec

__all__ = ["bias_grad", "forward", "input_grad", "kernel_grad"]


def forward(x: np.ndarray, kernel: np.ndarray, spec: LocalConvSpec) -> np.ndarray:
    """``y[n,o,f] = sum over t, c of x[n, o*stride + t*dilation - pad, c] * kernel[o,t,c,f]``.

    Parameters
    ----------
    x : ndarray
        ``(N, *input_size, in_channels)``.
    kernel : ndarray
        ``(*positions_shape, *kernel_size, in_channels // groups, filters)``.

    Returns
    -------
    ndarray
        ``(N, *output_size, filters)``, of the dtype of *x*, summed in its accumulator dtype.
    """
    padded = _by_position(_pad(_wide(x), spec), spec)
    y = np.zeros(
        (*spec.output_size, spec.groups, len(x), spec.filters // spec.groups), padded.dtype
    )
    for tap, seen in spec.taps():
        y += padded[seen] @ _wide(_at_tap(kernel, tap, spec))
    return _by_sample(y).astype(x.dtype)


def input_grad(dy: np.ndarray, kernel: np.ndarray, spec: LocalConvSpec) -> np.ndarray:
    """``dx[n,i,c] = sum over o, t, f with o*stride + t*dilation - pad = i of dy * kernel``.

    Parameters
    ----------
    dy : ndarray
        ``(N, *output_size, filters)``.
    kernel : ndarray
        ``(*positions_shape, *kernel_size, in_channels // groups, filters)``.

    Returns
    -------
    ndarray
        ``(N, *input_size, in_channels)``, of the dtype of *dy*.
    """
    dy_wide = _by_position(_wide(dy), spec)
    channels = spec.in_channels // spec.groups
    dx = np.zeros((*spec.padded_size, spec.groups, len(dy), channels), dy_wide.dtype)
    for tap, seen in spec.taps():
        dx[seen] += dy_wide @ np.swapaxes(_wide(_at_tap(kernel, tap, spec)), -1, -2)
    return _by_sample(dx[spec.inner]).astype(dy.dtype)


def kernel_grad(x: np.ndarray, dy: np.ndarray, spec: LocalConvSpec) -> np.ndarray:
    """``dkernel[o,t,c,f] = sum over n of x[n, o*stride + t*dilation - pad, c] * dy[n,o,f]``.

    Also summed over the positions that share a kernel.

    Parameters
    ----------
    x : ndarray
        ``(N, *input_size, in_channels)``.
    dy : ndarray
        ``(N, *output_size, filters)``.

    Returns
    -------
    ndarray
        ``(*positions_shape, *kernel_size, in_channels // groups, filters)``, of the dtype of *x*.
    """
    padded, dy_wide = _by_position(_pad(_wide(x), spec), spec), _by_position(_wide(dy), spec)
    dkernel = np.zeros(spec.kernel_shape, padded.dtype)
    for tap, seen in spec.taps():
        products = np.swapaxes(padded[seen], -1, -2) @ dy_wide
        at_tap = _at_tap(dkernel, tap, spec)
        at_tap[...] = products.sum(axis=spec.shared_axes, keepdims=True)
    return dkernel.astype(x.dtype)


def bias_grad(dy: np.ndarray, bias_shape: tuple[int, ...]) -> np.ndarray:
    """Sum of *dy* over the batch and over the positions that share a bias.

    Parameters
    ----------
    dy : ndarray
        ``(N, *output_size, filters)``.
    bias_shape : tuple of int
        ``(*output_size, filters)``, 1 where shared.
    """
    summed = _wide(dy).sum(axis=0)
    shared = tuple(i for i, n in enumerate(bias_shape[:-1]) if n == 1)
    result: np.ndarray = summed.sum(axis=shared, keepdims=True).astype(dy.dtype)
    return result


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(DTYPES[name_of(array.dtype)].accumulator, copy=False)


def _pad(x: np.ndarray, spec: LocalConvSpec) -> np.ndarray:
    return np.pad(x, ((0, 0), *spec.padding, (0, 0)))


def _by_position(array: np.ndarray, spec: LocalConvSpec) -> np.ndarray:
    """``(N, *O, G*C) -> (*O, G, N, C)``."""
    channels = array.shape[-1] // spec.groups
    return np.moveaxis(array.reshape(*array.shape[:-1], spec.groups, channels), 0, -2)


def _by_sample(array: np.ndarray) -> np.ndarray:
    """``(*O, G, N, F) -> (N, *O, G*F)``."""
    moved = np.moveaxis(array, -2, 0)
    return moved.reshape(*moved.shape[:-2], moved.shape[-2] * moved.shape[-1])


def _at_tap(kernel: np.ndarray, tap: tuple[int, ...], spec: LocalConvSpec) -> np.ndarray:
    """``(*O, *k, C, G*F) -> (*O, G, C, F)``, a view."""
    index: tuple[Any, ...] = (..., *tap, slice(None), slice(None))
    at_tap = kernel[index]
    grouped = at_tap.reshape(*at_tap.shape[:-1], spec.groups, spec.filters // spec.groups)
    return np.swapaxes(grouped, -2, -3)
