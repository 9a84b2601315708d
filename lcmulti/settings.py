"""`lcmulti.choosing.settings` under its documented name."""

from lcmulti.choosing.settings import *  # noqa: F403
from lcmulti.choosing.settings import __all__  # noqa: F401
