"""Locally connected layers for Keras 3 on all its backends, and loading of old models.

Importing this package imports Keras. `lcmulti_keras.startup` decides which of Keras' backends runs.
"""

from lcmulti_keras.startup import choose_backend

choose_backend()

from lcmulti_keras.advising import advise  # noqa: E402
from lcmulti_keras.base import LocallyConnectedBase  # noqa: E402
from lcmulti_keras.fusing import fuse_bn  # noqa: E402
from lcmulti_keras.layers import (  # noqa: E402 - Keras reads its backend as it is imported
    LocallyConnected1D,
    LocallyConnected2D,
    LocallyConnected3D,
)
from lcmulti_keras.legacy import (  # noqa: E402
    LoadedWeights,
    load_legacy_model,
    load_legacy_weights,
)
from lcmulti_keras.retying import retie  # noqa: E402
from lcmulti_keras.sharing import ShareEvery  # noqa: E402
from lcmulti_keras.smoothness import SheetSmoothness, Smoothness  # noqa: E402
from lcmulti_keras.transposed import (  # noqa: E402
    LocallyConnected1DTranspose,
    LocallyConnected2DTranspose,
    LocallyConnected3DTranspose,
)
from lcmulti_keras.untying import untie  # noqa: E402

advise(lambda layer: isinstance(layer, LocallyConnectedBase))

__all__ = [
    "LocallyConnected1D",
    "LocallyConnected2D",
    "LocallyConnected3D",
    "LocallyConnected1DTranspose",
    "LocallyConnected2DTranspose",
    "LocallyConnected3DTranspose",
    "LoadedWeights",
    "ShareEvery",
    "SheetSmoothness",
    "Smoothness",
    "fuse_bn",
    "load_legacy_model",
    "load_legacy_weights",
    "retie",
    "untie",
]
