"""Arguments that several subcommands take."""

from __future__ import annotations

import argparse
from pathlib import Path

from lcmulti.errors import ArgumentError, described

__all__ = ["check_files", "names"]


def names(text: str) -> list[str]:
    """``"torch, jax"`` as ``["torch", "jax"]``."""
    return [name.strip() for name in text.split(",") if name.strip()]


def check_files(args: argparse.Namespace, *options: str) -> None:
    """Find out before the work that its outcome could not be written.

    Raises
    ------
    ArgumentError
        If a file asked for is a folder, or in one that does not exist.
    """
    for option in options:
        path: Path | None = getattr(args, option)
        if path is not None and (not path.parent.is_dir() or path.is_dir()):
            shown = described(str(path))
            raise ArgumentError(f"--{option}", "a file in a folder that exists", shown)
