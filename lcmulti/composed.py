"""`lcmulti.algorithms.composed` under its documented name."""

from lcmulti.algorithms.composed import *  # noqa: F403
from lcmulti.algorithms.composed import __all__  # noqa: F401
