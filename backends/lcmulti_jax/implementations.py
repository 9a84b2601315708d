"""Ways to compute the three maps with XLA."""

from __future__ import annotations

from lcmulti_jax.blocked import blocked, composed
from lcmulti_jax.special import conv, disjoint

__all__ = ["blocked", "composed", "conv", "disjoint"]
