"""What to install where a package that layers need is missing; imports none of them."""

from __future__ import annotations

from lcmulti.errors import MissingExtraError

__all__ = ["missing"]

NAMES = {"jax": "JAX", "jaxlib": "JAX", "flax": "Flax", "equinox": "Equinox"}


def missing(module: str, extra: str, error: ModuleNotFoundError) -> Exception:
    """The error to raise instead of *error*, which is returned if it is about something else."""
    package = NAMES.get((error.name or "").partition(".")[0])
    if package is None:
        return error
    return MissingExtraError(
        f"{module} needs {package}; install it with: pip install 'lcmulti[{extra}]'"
    )
