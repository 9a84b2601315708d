"""Run under `torch.jit.trace` without its warnings of sizes that become constants of the trace."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["run"]


def run(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call *function*, without those warnings: weights fix every size but that of the batch."""
    if not torch.jit.is_tracing():
        return function(*arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return function(*arguments)
