"""Locally connected layers for NumPy, PyTorch, JAX and TensorFlow, proven equal.

A locally connected layer is a convolution whose weights differ at every output position.
`local_conv` computes it in the framework its arrays belong to; ``lcmulti parity`` proves every
installed framework equal to one reference.
"""

from lcmulti import errors
from lcmulti.errors import LcmultiError
from lcmulti.explanation import Explanation, explain
from lcmulti.functional import local_conv
from lcmulti.settings import config
from lcmulti.spec import LocalConvSpec
from lcmulti.weights import initial_weights

__version__ = "0.1.0"

__all__ = [
    "Explanation",
    "LcmultiError",
    "LocalConvSpec",
    "__version__",
    "config",
    "errors",
    "explain",
    "initial_weights",
    "local_conv",
]
