"""Arguments that several subcommands take."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from lcmulti.files import require_writable

__all__ = ["Subparsers", "check_files", "names", "with_doubles"]

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a subcommand adds its own parser."""


DOUBLES = "JAX_ENABLE_X64"


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


@contextmanager
def with_doubles(dtype: str) -> Iterator[None]:
    """A context in which JAX has types of 64 bits if *dtype* is one, and it is imported there.

    JAX reads the variable when it is imported. A user's own setting is left alone.
    """
    if dtype.lower() not in ("float64", "complex128") or DOUBLES in os.environ:
        yield
        return
    os.environ[DOUBLES] = "1"
    try:
        yield
    finally:
        del os.environ[DOUBLES]
