"""Equinox: locally connected layers in the idiom of `equinox.nn.Conv`."""

from lcmulti_jax.missing import missing

try:
    from lcmulti_jax.equinox_fusing import fuse_bn
    from lcmulti_jax.equinox_layers import (
        LocallyConnected,
        LocallyConnected1d,
        LocallyConnected2d,
        LocallyConnected3d,
    )
    from lcmulti_jax.equinox_transposed import (
        LocallyConnectedTranspose,
        LocallyConnectedTranspose1d,
        LocallyConnectedTranspose2d,
        LocallyConnectedTranspose3d,
    )
    from lcmulti_jax.equinox_untying import retie, untie
except ModuleNotFoundError as error:
    raise missing("lcmulti_jax.equinox", "equinox", error) from error

__all__ = [
    "LocallyConnected",
    "LocallyConnected1d",
    "LocallyConnected2d",
    "LocallyConnected3d",
    "LocallyConnectedTranspose",
    "LocallyConnectedTranspose1d",
    "LocallyConnectedTranspose2d",
    "LocallyConnectedTranspose3d",
    "fuse_bn",
    "retie",
    "untie",
]
