"""lcmulti in JAX. The layers are in `lcmulti_jax.nnx` and `lcmulti_jax.equinox`.

Importing this package does not import JAX: the first call with arrays loads the backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["sharded"]

if TYPE_CHECKING:  # for type checkers and editors
    from lcmulti_jax.parallel import sharded
else:

    def __getattr__(name):
        if name != "sharded":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from lcmulti_jax.missing import missing

        try:
            from lcmulti_jax.parallel import sharded
        except ModuleNotFoundError as error:
            raise missing("lcmulti_jax.sharded", "jax", error) from error
        return sharded

    def __dir__():
        return [*globals(), *__all__]
