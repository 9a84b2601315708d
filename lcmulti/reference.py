"""`lcmulti.algorithms.reference` under its documented name."""

from lcmulti.algorithms.reference import *  # noqa: F403
from lcmulti.algorithms.reference import __all__  # noqa: F401
