"""Locally connected layers for NumPy, PyTorch, JAX and TensorFlow, proven equal.

A locally connected layer is a convolution whose weights differ at every output position.
`local_conv` computes it in the framework its arrays belong to; ``lcmulti parity`` proves every
installed framework equal to one reference.
"""

from lcmulti import errors
from lcmulti.choosing.config import config
from lcmulti.choosing.explain import Explanation, explain
from lcmulti.errors import LcmultiError
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.geometry.transposed import transposed_spec
from lcmulti.operations.local_conv import local_conv, local_conv_transpose
from lcmulti.operations.low_rank import local_conv_low_rank, low_rank_kernel
from lcmulti.operations.sheet import sheet_smoothness
from lcmulti.operations.smoothness import smoothness
from lcmulti.weights.file import Weights, load_weights, save_weights
from lcmulti.weights.initial import initial_weights

__version__ = "0.1.0"

__all__ = [
    "Explanation",
    "LcmultiError",
    "LocalConvSpec",
    "Weights",
    "__version__",
    "config",
    "errors",
    "explain",
    "initial_weights",
    "load_weights",
    "local_conv",
    "local_conv_low_rank",
    "local_conv_transpose",
    "low_rank_kernel",
    "save_weights",
    "sheet_smoothness",
    "smoothness",
    "transposed_spec",
]
