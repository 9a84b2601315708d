"""lcmulti in JAX. The layers are in `lcmulti_jax.nnx` and `lcmulti_jax.equinox`.

Importing this package imports nothing: the backend is loaded when arrays arrive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lcmulti_jax.parallel import sharded

__all__ = ["sharded"]


def __getattr__(name: str) -> Any:
    if name != "sharded":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lcmulti_jax.parallel import sharded

    return sharded


def __dir__() -> list[str]:
    return [*globals(), *__all__]
