"""Arguments that several subcommands take."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias

from lcmulti.files import require_writable

__all__ = ["Subparsers", "check_files", "names"]

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a subcommand adds its own parser."""


def names(text: str) -> list[str]:
    """``"torch, jax"`` as ``["torch", "jax"]``."""
    return [name.strip() for name in text.split(",") if name.strip()]


def check_files(args: argparse.Namespace, *options: str) -> None:
    """Raise before the work begins if its results could not be written.

    Raises
    ------
    ArgumentError
        As `lcmulti.files.require_writable`, for one of the files asked for.
    """
    for option in options:
        path: Path | None = getattr(args, option)
        if path is not None:
            require_writable(f"--{option}", path)
