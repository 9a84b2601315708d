"""Native CPU kernels for lcmulti: one C++ library behind a door for each framework.

Nothing is to be imported from here: installing the distribution registers the implementation
``native`` for NumPy, PyTorch, JAX and TensorFlow. SavedModels that contain its TensorFlow
operation are the exception: ``import lcmulti_native.tensorflow_door`` before loading one.
"""

from lcmulti_native.library import __version__

__all__ = ["__version__"]
