"""The settings under their documented names."""

from lcmulti.choosing.config import config
from lcmulti.choosing.settings import DEFAULTS, Settings, Source, closed_places, sources, user_file
from lcmulti.choosing.user_settings import remove_user_setting, write_user_setting

__all__ = [
    "DEFAULTS", "Settings", "Source", "closed_places", "config", "remove_user_setting", "sources",
    "user_file", "write_user_setting",
]  # fmt: skip
