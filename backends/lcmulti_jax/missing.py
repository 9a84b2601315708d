"""The error for a missing package that layers need; it says what to install."""

from __future__ import annotations

from lcmulti.errors import MissingExtraError

__all__ = ["missing"]

NAMES = {"jax": "JAX", "jaxlib": "JAX", "flax": "Flax", "equinox": "Equinox"}


def missing(module: str, extra: str, error: ModuleNotFoundError) -> Exception:
    """The error to raise instead of *error*; *error* itself if it has another cause."""
    package = NAMES.get((error.name or "").partition(".")[0])
    if package is None:
        return error
    return MissingExtraError(
        f"{module} needs {package}; install it with: pip install 'lcmulti[{extra}]'"
    )
