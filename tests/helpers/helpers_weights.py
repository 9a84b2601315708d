"""A layer and its arrays, which the tests of files of weights share."""

from __future__ import annotations

import numpy as np

import lcmulti

SPEC = lcmulti.LocalConvSpec(
    (7, 6, 4), 6, (3, 2), strides=(2, 1), padding=((1, 0), (0, 2)), padding_mode="reflect",
    dilation=(1, 2), groups=2, data_format="channels_last",
)  # fmt: skip


def arrays(spec=SPEC, dtype="float32", seed=0):
    """Return a kernel and a bias."""
    rng = np.random.default_rng(seed)
    return tuple(
        rng.standard_normal(shape).astype(dtype) for shape in (spec.kernel_shape, spec.bias_shape)
    )
