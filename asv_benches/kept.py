"""Results kept beside the benchmarks that measured them: ``results/NAME.json``, with the machine.

What docs/performance.md says is computed from these files.
"""

from __future__ import annotations

import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from lcmulti_native.library import library

from lcmulti.bench.machine import cores, processor

__all__ = ["keep"]

FOLDER = Path(__file__).parent / "results"
DISTRIBUTIONS = ("lcmulti", "lcmulti-native", "numpy", "torch", "jax", "tensorflow", "tf_keras")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def keep(name: str, rows: dict[str, Any]) -> None:
    """Add rows to those of *name*, or put them in their place; another machine's are dropped."""
    machine = {
        "processor": processor(),
        "cores": cores(),
        "instructions": library().lcmulti_isa().decode(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {each: _version(each) for each in DISTRIBUTIONS},
    }
    path = FOLDER / f"{name}.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    before = found["rows"] if found.get("machine") == machine else {}
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps({"machine": machine, "rows": before | rows}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
