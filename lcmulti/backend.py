"""`lcmulti.plugins.contract` under its documented name."""

from lcmulti.plugins.contract import *  # noqa: F403
from lcmulti.plugins.contract import __all__  # noqa: F401
