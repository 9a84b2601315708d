"""All patches at once: `Blocked` with everything in one block."""

from lcmulti_jax.blocked import Blocked

__all__ = ["composed"]

composed = Blocked(bounded=False)
