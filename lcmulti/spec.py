"""`lcmulti.geometry.spec` under its documented name."""

from lcmulti.geometry.spec import *  # noqa: F403
from lcmulti.geometry.spec import __all__  # noqa: F401
