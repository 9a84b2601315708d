"""Native CPU kernels for lcmulti: one C++ library, with a module ("door") for each framework.

Installing the distribution registers the implementation ``native`` for NumPy, PyTorch, JAX and
TensorFlow; nothing needs to be imported. There is one exception: before loading a SavedModel that
contains its TensorFlow operation, ``import lcmulti_native.tensorflow_door``.
"""

from lcmulti_native.library import __version__

__all__ = ["__version__"]
