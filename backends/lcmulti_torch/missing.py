"""The error where PyTorch is not installed; it says what to install."""

from __future__ import annotations

from lcmulti.errors import MissingExtraError

__all__ = ["missing"]


def missing(module: str, error: ModuleNotFoundError) -> Exception:
    """The error to raise instead of *error*; *error* itself if it has another cause."""
    if error.name != "torch":
        return error
    return MissingExtraError(
        f"{module} needs PyTorch; install it with: pip install 'lcmulti[torch]'"
    )
