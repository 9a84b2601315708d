"""Collect ``interpreted/`` only in a process where Triton interprets its kernels."""

import importlib.util
import os

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
MISSING = [name for name in ("torch", "triton") if importlib.util.find_spec(name) is None]

collect_ignore = [] if INTERPRETED and not MISSING else ["interpreted"]
