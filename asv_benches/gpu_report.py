"""Report the figures of `on_gpu.py`: rows as text, means, and a plot."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

__all__ = ["plot", "shown", "summary"]

Row = dict[str, Any]
RATIOS = (
    "times", "estimated times", "best recipe / triton", "worst", "forward", "input_grad",
    "kernel_grad",
)  # fmt: skip


def shown(row: Row) -> str:
    """Return a row as text."""

    def text(key: str, value: Any) -> str:
        if not isinstance(value, float):
            return str(value)
        is_time = key not in RATIOS and not key.endswith("/s")
        return f"{value * 1e6:,.1f} us" if is_time else f"{value:,.3g}"

    return "  ".join(f"{key} {text(key, value)}" for key, value in row.items())


def summary(result: dict[str, list[Row]]) -> dict[str, float | None]:
    """Return means and extremes over all layers."""
    checked, timed = result.get("correctness", []), result.get("maps", [])
    trained = result.get("training", [])
    found: dict[str, float | None] = {
        "largest share of the error bound": max((row["worst"] for row in checked), default=None)
    }
    for dtype in ("float32", "bfloat16"):
        found[f"times the roofline, {dtype}"] = _mean(timed, "times", dtype)
        found[f"best recipe / triton, {dtype}"] = _mean(trained, "best recipe / triton", dtype)
        found[f"the least of those, {dtype}"] = min(
            (row["best recipe / triton"] or math.inf for row in trained if row["dtype"] == dtype),
            default=None,
        )
    wide, half = (found[f"times the roofline, {each}"] for each in ("float32", "bfloat16"))
    both = {row["layer"] for row in timed if row["dtype"] == "bfloat16"}
    if wide and half:
        found["float32 / bfloat16, seconds"] = _seconds(timed, "float32", both) / _seconds(
            timed, "bfloat16", both
        )
    return found


def _mean(rows: list[Row], key: str, dtype: str) -> float | None:
    """Return the geometric mean of *key* over the rows of a dtype."""
    found = [row[key] for row in rows if row["dtype"] == dtype and row[key]]
    return math.exp(sum(map(math.log, found)) / len(found)) if found else None


def _seconds(rows: list[Row], dtype: str, layers: set[str]) -> float:
    kept = [row for row in rows if row["layer"] in layers]
    return _mean(kept, "seconds", dtype) or math.nan


def plot(result: dict[str, list[Row]], path: Path) -> None:
    """Plot seconds over the roofline's, measured and estimated: one bar for each layer and map."""
    from matplotlib.figure import Figure

    rows = [row for row in result["maps"] if row["dtype"] == "float32"]
    figure = Figure(figsize=(8, 0.22 * len(rows) + 1), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(rows)), [row["times"] for row in rows], color="#4878a8", label="measured")
    told = [(i, row["estimated times"]) for i, row in enumerate(rows) if row["estimated times"]]
    axes.plot([t for _, t in told], [i for i, _ in told], "k|", label="estimated for an H200")
    axes.set_yticks(range(len(rows)), [f"{row['layer']} {row['map']}" for row in rows], fontsize=6)
    axes.set(xlabel="times the roofline (float32)", xscale="log")
    axes.invert_yaxis()
    axes.legend()
    figure.savefig(path)
