"""Keep results beside the benchmarks that measured them: ``results/NAME.json``, with the machine.

python asv_benches/kept.py     # writes the marked parts of README and docs/performance.md
"""

from __future__ import annotations

import json
import platform
from importlib import metadata
from math import exp, log
from pathlib import Path
from typing import Any

__all__ = ["PAGES", "keep", "with_tables"]

FOLDER = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[1]
PAGES = {
    ROOT / "docs" / "performance.md": ("roofline", "peers", "overhead"),
    ROOT / "README.md": ("means",),
}
DISTRIBUTIONS = ("lcmulti", "lcmulti-native", "numpy", "torch", "jax", "tensorflow", "tf_keras")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def keep(name: str, rows: dict[str, Any], gpu: str | None = None) -> None:
    """Add rows to the file of *name*. They replace rows of the same workload.

    Rows of another machine are dropped. *gpu* is the name of the GPU that was measured, if any.
    """
    from lcmulti_native.library import library

    from lcmulti.bench.machine import processor
    from lcmulti.processors import cores

    machine = {
        "processor": processor(),
        "cores": cores(),
        "instructions": library().lcmulti_isa().decode(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {each: _version(each) for each in DISTRIBUTIONS},
    }
    if gpu is not None:
        machine["gpu"] = gpu
    path = FOLDER / f"{name}.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    before = found["rows"] if found.get("machine") == machine else {}
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps({"machine": machine, "rows": before | rows}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def _rows(name: str) -> dict[str, Any]:
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else {}


def _machine(name: str) -> str:
    machine = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["machine"]
    return f"{machine['cores']} cores of {machine['processor']} ({machine['instructions']})"


def _mean(values: list[float]) -> float:
    return exp(sum(map(log, values)) / len(values))


def _roofline() -> list[str]:
    half = _rows("roofline_bfloat16")
    lines = [
        "| workload | bound by | forward | x roofline | forward + backward | x roofline | fresh "
        "| bfloat16 is faster by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    maps = "forward", "input_grad", "kernel_grad"
    over: list[tuple[float, float]] = []
    for name, row in _rows("roofline_float32").items():
        both = sum(row[each] for each in maps)
        faster = f"{both / sum(half[name][each] for each in maps):.2f}" if name in half else ""
        if both > 1e-3:
            over.append((row["forward x"], row["both x"]))
        lines.append(
            f"| {name} | {row['bound']} | {row['forward'] * 1e3:.2f} | {row['forward x']:.2f} "
            f"| {both * 1e3:.2f} | {row['both x']:.2f} | {row['fresh'] * 1e3:.2f} | {faster} |"
        )
    for what, each in zip(("Forward", "Forward + backward"), zip(*over, strict=True), strict=True):
        lines += ["", f"{what}: geometric mean {_mean([*each]):.2f}, highest {max(each):.2f}."]
    return lines


FRAMEWORKS = {"torch": "PyTorch", "jax": "JAX", "tensorflow": "TensorFlow"}


def _ratios(framework: str) -> list[float]:
    rows = _rows(f"against_{framework}").values()
    return [row["best peer x"] for row in rows if row["best peer x"] is not None]


def _peers() -> list[str]:
    lines = [f"| workload | {' | '.join(FRAMEWORKS.values())} |", "|---|---|---|---|"]
    found = {name: _rows(f"against_{name}") for name in FRAMEWORKS}
    for workload in dict.fromkeys(each for rows in found.values() for each in rows):
        cells = []
        for rows in found.values():
            row = rows.get(workload, {})
            best = row.get("best peer x")
            cells.append("" if best is None else f"{best:.1f} ({row['x roofline']:.1f})")
        lines.append(f"| {workload} | {' | '.join(cells)} |")
    means = " | ".join(f"{_mean(_ratios(name)):.1f}" for name in FRAMEWORKS)
    machines = "; ".join(f"{FRAMEWORKS[name]}: {_machine(f'against_{name}')}" for name in found)
    return [*lines, f"| geometric mean | {means} |", "", f"Measured on: {machines}."]


def _means() -> list[str]:
    each = ", ".join(
        f"{_mean(_ratios(name)):.1f} in {shown} ({len(_ratios(name))} layers)"
        for name, shown in FRAMEWORKS.items()
    )
    return [
        "With them, the fastest peer of each framework takes so many times as long for forward and",
        "backward, in the geometric mean over published layers, on two cores of a Zen 3:",
        f"{each}.",
    ]


def _overhead() -> list[str]:
    lines = ["| | called | door | `local_conv` | its own `x + x` |", "|---|---|---|---|---|"]
    for name, row in _rows("overhead").items():
        times = " | ".join(f"{row[each]:.1f}" for each in ("door us", "local_conv us", "x + x us"))
        lines.append(f"| {name} | {row['how']} | {times} |")
    return lines


TABLES = {
    "roofline": _roofline,
    "peers": _peers,
    "means": _means,
    "overhead": _overhead,
}


def with_tables(page: str, names: tuple[str, ...]) -> str:
    """Return the page with the parts between the marks of these names replaced."""
    for name in names:
        start, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        before, rest = page.split(start)
        page = before + start + "\n".join(TABLES[name]()) + end + rest.split(end)[1]
    return page


if __name__ == "__main__":
    for path, names in PAGES.items():
        path.write_text(with_tables(path.read_text(encoding="utf-8"), names), encoding="utf-8")
