"""The names of the backends that are installed here."""

from lcmulti import plugins

INSTALLED = [
    name for name, entry in plugins.registry().backends.items() if plugins.is_installed(entry)
]
