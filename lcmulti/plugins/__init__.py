"""The two seams: what a backend and an implementation are, and who has registered one."""

from lcmulti.plugins.collecting import (
    GROUP,
    Origin,
    Registry,
    framework_version,
    is_installed,
    load_backend,
    load_implementation,
    placement,
    registry,
)

__all__ = [
    "GROUP",
    "Origin",
    "Registry",
    "framework_version",
    "is_installed",
    "load_backend",
    "load_implementation",
    "placement",
    "registry",
]
