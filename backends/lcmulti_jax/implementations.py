"""What `lcmulti_jax.plugin` names, all four importing JAX."""

from lcmulti_jax.blocked import blocked, composed
from lcmulti_jax.special import conv, disjoint

__all__ = ["blocked", "composed", "conv", "disjoint"]
