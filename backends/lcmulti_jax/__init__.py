"""The JAX backend of lcmulti; `plugin` names what there is, and only `backend` imports JAX."""
