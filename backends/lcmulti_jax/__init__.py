"""lcmulti in JAX. The layers are in `lcmulti_jax.nnx` and `lcmulti_jax.equinox`.

Importing this package imports nothing: the backend is loaded when arrays arrive.
"""
