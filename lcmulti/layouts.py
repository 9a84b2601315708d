"""`lcmulti.weights.layouts` under its documented name."""

from lcmulti.weights.layouts import *  # noqa: F403
from lcmulti.weights.layouts import __all__  # noqa: F401
