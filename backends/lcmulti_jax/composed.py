"""All patches at once: `JaxBlocked` with a single block."""

from lcmulti_jax.blocked import JaxBlocked

__all__ = ["composed"]

composed = JaxBlocked(bounded=False)
