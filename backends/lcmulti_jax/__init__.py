"""lcmulti in JAX. The layers are in `lcmulti_jax.nnx` and `lcmulti_jax.equinox`.

Importing this package does not import JAX: the first call with arrays loads the backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lcmulti_jax.parallel import sharded

__all__ = ["sharded"]


def __getattr__(name: str) -> Any:
    if name != "sharded":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lcmulti_jax.missing import missing

    try:
        from lcmulti_jax.parallel import sharded
    except ModuleNotFoundError as error:
        raise missing("lcmulti_jax.sharded", "jax", error) from error
    return sharded


def __dir__() -> list[str]:
    return [*globals(), *__all__]
