"""One call of the native kernels, its expected result, and the bound of its error."""

from __future__ import annotations

import numpy as np

import lcmulti
from lcmulti.algorithms import reference
from lcmulti.geometry.of_call import spec_of_call
from lcmulti.plugins.contract import Resources

CHILD = """\
import os
from pathlib import Path

import lcmulti
from helpers_native import *
from lcmulti import plugins
from lcmulti_native import library
"""  # the first lines of code for a new process

RESOURCES = Resources(2**28)
ROUNDING = {"bfloat16": 2**-8, "float16": 2**-11}  # relative to the largest value
RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 7, 8, 4)).astype("float32")
KERNEL = RNG.standard_normal((3, 8, 3, 3, 2, 6)).astype("float32")
CALL = dict(
    strides=(2, 1), padding=((0, 0), (1, 1)), dilation=1, groups=2, data_format="channels_last"
)
SPEC = spec_of_call(X.shape, KERNEL.shape, None, padding_mode="zeros", **CALL)
Y = reference.forward(X, KERNEL, SPEC)


def native(x, kernel, **changes):
    return lcmulti.local_conv(x, kernel, **(CALL | {"implementation": "native"} | changes))


def composed(x, kernel):
    return native(x, kernel, implementation="composed")


def close(ours, expected, tolerance=1e-4):
    ours, expected = np.asarray(ours, "float64"), np.asarray(expected, "float64")
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max() <= tolerance * np.abs(expected).max()


def all_close(ours, expected, tolerance=1e-4):
    for each, other in zip(ours, expected, strict=True):
        close(each, other, tolerance)


def everything(implementation, threads=None, spec=SPEC, batch=5, dtype="float32", sizes=(1, 1, 1)):
    """The three maps of random numbers about as large as *sizes*: of x, kernel and dy."""
    rng = np.random.default_rng(1)
    shapes = ((batch, *spec.input_shape), spec.kernel_shape, (batch, *spec.output_shape))
    drawn = (rng.standard_normal(shape) for shape in shapes)
    x, kernel, dy = ((each * size).astype(dtype) for each, size in zip(drawn, sizes, strict=True))
    resources = Resources(2**28, threads)
    return (
        implementation.forward(x, kernel, spec, resources),
        implementation.input_grad(dy, kernel, spec, resources),
        implementation.kernel_grad(x, dy, spec, resources),
    )
