"""Arguments that several subcommands take."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias

from lcmulti.errors import ArgumentError, described

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
        If a requested file is a folder, or is in a folder that does not exist.
    """
    for option in options:
        path: Path | None = getattr(args, option)
        if path is not None and (not path.parent.is_dir() or path.is_dir()):
            shown = described(str(path))
            raise ArgumentError(f"--{option}", "a file in a folder that exists", shown)
