"""Initial weights for a spec."""

from __future__ import annotations

from math import prod, sqrt

import numpy as np

from lcmulti.errors import ArgumentTypeError
from lcmulti.geometry.arguments import choice, integer
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.memory import require_memory

__all__ = ["geometry_told", "initial_weights"]


def geometry_told(*shapes: tuple[int, ...]) -> str:
    """Describe in words the layer that weights of these shapes are for; for error messages.

    Parameters
    ----------
    *shapes : tuple of int
        The shape of a kernel, or the shapes of a basis and of coefficients.
    """
    if len(shapes) == 2:
        basis, coefficients = shapes
        whole = geometry_told((*coefficients[:-1], *basis[len(coefficients) :]))
        return f"{whole}, of rank {basis[0]}"
    (kernel,) = shapes
    axes = (len(kernel) - 2) // 2
    if axes < 1:
        return f"no locally connected layer, with shape {kernel}"
    return (
        f"positions {kernel[:axes]}, kernel_size {kernel[axes:-2]} and {kernel[-2]} x {kernel[-1]} "
        "channels"
    )


def initial_weights(
    spec: LocalConvSpec, *, seed: int | None = None, dtype: str = "float32"
) -> tuple[np.ndarray, np.ndarray]:
    """A random kernel, scaled as that of a convolution of the same geometry, and a bias of zeros.

    Glorot uniform with the fans of one position, ``prod(kernel_size)`` times the channels and
    filters of one group (Glorot and Bengio 2010, equation 16). Keras 2 and Flax count all
    positions as fan-in, which starts weights about ``sqrt(positions)`` too small.

    Parameters
    ----------
    spec : LocalConvSpec
    seed : int, optional
        Seed of `numpy.random.default_rng`; None draws other weights at each call.
    dtype : str, default "float32"
        A real NumPy dtype.

    Returns
    -------
    kernel : ndarray
        ``spec.kernel_shape``
    bias : ndarray
        ``spec.bias_shape``

    Raises
    ------
    TooLargeError
        If the weights would not fit in memory. Nothing has been allocated then.
    """
    if not isinstance(spec, LocalConvSpec):
        raise ArgumentTypeError("spec", "a LocalConvSpec", spec)
    if seed is not None:
        seed = integer("seed", seed, 0)
    dtype = choice("dtype", dtype, ("float16", "float32", "float64"))
    # Drawn in float64 and then rounded, so two arrays exist at once.
    require_memory("kernel", spec.kernel_shape, "float64", copies=2)
    taps = prod(spec.kernel_size)
    fans = taps * (spec.in_channels + spec.filters) // spec.groups
    limit = sqrt(6 / fans)
    generator = np.random.default_rng(seed)
    kernel = generator.uniform(-limit, limit, spec.kernel_shape).astype(dtype)
    return kernel, np.zeros(spec.bias_shape, dtype)
