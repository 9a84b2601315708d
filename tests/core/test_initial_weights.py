"""`initial_weights`: shapes, dtype and distribution, and sizes that do not fit in memory."""

import numpy as np
import pytest

import lcmulti
from lcmulti.errors import (
    TooLargeError,
)


def test_weights_too_large_are_predicted():
    spec = lcmulti.LocalConvSpec((100_000, 100_000, 3), filters=64, kernel_size=3)
    with pytest.raises(TooLargeError) as error:
        lcmulti.initial_weights(spec)
    assert "shape (99998, 99998, 3, 3, 3, 64) of float64" in str(error.value)
    assert "GiB" in str(error.value)


def test_initial_weights():
    spec = lcmulti.LocalConvSpec((9, 8, 4), filters=6, kernel_size=3, groups=2)
    kernel, bias = lcmulti.initial_weights(spec, seed=0, dtype="float64")
    again, _ = lcmulti.initial_weights(spec, seed=0)
    assert (kernel.shape, bias.shape) == (spec.kernel_shape, spec.bias_shape)
    np.testing.assert_array_equal(kernel.astype("float32"), again)
    assert not bias.any()
    # Glorot and Bengio 2010, equation 16, with the fans of one position and group.
    limit = (6 / (9 * 2 + 9 * 3)) ** 0.5
    assert 0.95 * limit < abs(kernel).max() <= limit
    assert abs(kernel.var() * 3 / limit**2 - 1) < 0.1
