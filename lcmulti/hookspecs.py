"""`lcmulti.plugins.hookspecs` under its documented name."""

from lcmulti.plugins.hookspecs import *  # noqa: F403
from lcmulti.plugins.hookspecs import __all__  # noqa: F401
