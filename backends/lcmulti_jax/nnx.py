"""Flax NNX: locally connected layers in the idiom of `nnx.Conv`."""

from lcmulti_jax.missing import missing

try:
    from lcmulti_jax.nnx_fusing import fuse_bn
    from lcmulti_jax.nnx_layers import LocallyConnected
    from lcmulti_jax.nnx_transposed import LocallyConnectedTranspose
    from lcmulti_jax.nnx_untying import retie, untie
except ModuleNotFoundError as error:
    raise missing("lcmulti_jax.nnx", "flax", error) from error

__all__ = ["LocallyConnected", "LocallyConnectedTranspose", "fuse_bn", "retie", "untie"]
