"""`lcmulti.numpy.backend` under its documented name."""

from lcmulti.numpy.backend import *  # noqa: F403
from lcmulti.numpy.backend import __all__  # noqa: F401
