"""Every operation of lcmulti on the parameter objects of a framework's libraries."""

from __future__ import annotations

import numpy as np

import lcmulti

SPEC = lcmulti.LocalConvSpec((4, 5, 3), 4, (2, 3), data_format="channels_last")
SHAPES = {
    "x": (2, *SPEC.input_shape),
    "kernel": SPEC.kernel_shape,
    "bias": SPEC.bias_shape,
    "y": (2, *SPEC.output_shape),
    "basis": (2, 1, 1, *SPEC.kernel_shape[2:]),
    "coefficients": (*SPEC.positions_shape, 2),
}
OPERATIONS = {
    "local_conv": (("x", "kernel", "bias"), lcmulti.local_conv),
    "local_conv_transpose": (("y", "kernel"), lcmulti.local_conv_transpose),
    "local_conv_low_rank": (("x", "basis", "coefficients", "bias"), lcmulti.local_conv_low_rank),
    "low_rank_kernel": (("basis", "coefficients"), lcmulti.low_rank_kernel),
    "smoothness": (("kernel",), lambda kernel: lcmulti.smoothness(kernel, SPEC)),
    "sheet_smoothness": (
        ("kernel", "bias"),
        lambda kernel, bias: lcmulti.sheet_smoothness(kernel, bias, SPEC, sheet=(2, 2)),
    ),
}
"""The names of the arrays in `SHAPES` that an operation takes, and the operation."""


def drawn(names):
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal(shape).astype("float32") for name, shape in SHAPES.items()}
    return [arrays[name] for name in names]


def check_variables(variable, array, to_numpy, path):
    """Each operation takes variables for any of its arrays, and gives what it gives of arrays.

    Parameters
    ----------
    variable, array : callable
        Make a variable, and an array of the framework, from a NumPy array.
    to_numpy : callable
        The NumPy array of a result.
    path : Path
        Where a file can be written.
    """
    for name, (names, run) in OPERATIONS.items():
        arrays = drawn(names)
        expected = run(*map(array, arrays))
        for which in (*range(len(arrays)), None):  # one of them a variable, or all
            mixed = [
                (variable if which in (None, i) else array)(each) for i, each in enumerate(arrays)
            ]
            y = run(*mixed)
            assert type(y) is type(expected), (name, which, type(y))
            np.testing.assert_allclose(to_numpy(y), to_numpy(expected), rtol=1e-6, atol=1e-6)
        beside_numpy = run(variable(arrays[0]), *arrays[1:])
        np.testing.assert_allclose(to_numpy(beside_numpy), to_numpy(expected), rtol=1e-6, atol=1e-6)
    x, kernel, bias = drawn(("x", "kernel", "bias"))
    told = lcmulti.explain(*map(variable, (x, kernel, bias)))
    assert told.backend == lcmulti.explain(*map(array, (x, kernel, bias))).backend
    lcmulti.save_weights(path, variable(kernel), variable(bias), spec=SPEC)
    assert np.array_equal(lcmulti.load_weights(path).kernel, kernel)
