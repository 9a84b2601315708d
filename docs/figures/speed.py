"""Measure and draw how many times as fast as its peers lcmulti trains (README, docs/measuring.md).

    python docs/figures/speed.py [--draw]       # --draw: from speed.json, without measuring

It times forward and both gradients in float32, with what ``implementation="auto"`` takes without
the native kernels, against each peer of `lcmulti.bench` in the same process.
"""

import argparse
import json
import os
from math import exp, log
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib
from matplotlib.figure import Figure

FOLDER = Path(__file__).parent
WORKLOADS = (
    "keras_docstring_1", "keras_docstring_2", "deepface_l5", "deepface_l6", "cuda_convnet_local3",
)  # fmt: skip
PEERS = ("unfold+einsum", "forum recipe", "lax local", "Flax ConvLocal", "tf_keras 1")
matplotlib.rcParams["svg.hashsalt"] = "lcmulti"  # so that the file is the same each time


def measure(repeat):
    """Measure one workload after the other and write speed.json."""
    from lcmulti.bench import bench

    found = {"machine": None, "rows": []}
    for name in WORKLOADS:
        report = bench(
            [name], backends=["torch", "jax", "tensorflow"], implementations=["auto"], peers=PEERS,
            variants=False, mode="training", repeat=repeat,
        )  # fmt: skip
        found["machine"] = report.machine._asdict()
        for row in report.rows:
            found["rows"].append(
                {
                    "workload": name, "backend": row.backend, "name": row.name, "kind": row.kind,
                    "seconds": row.seconds, "spread": row.spread, "problem": row.problem,
                    "ratio": report.relative(row),
                }
            )  # fmt: skip
        (FOLDER / "speed.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def draw(found):
    """Draw the geometric mean of each peer as a diamond, and each workload as a dot."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    frameworks = {"torch": "#dd8452", "jax": "#55a868", "tensorflow": "#c44e52"}
    rows = [row for row in found["rows"] if row["kind"] == "peer" and row["ratio"]]
    labels = []
    for place, peer in enumerate(PEERS):
        own = [row for row in rows if row["name"] == peer]
        if not own:
            continue
        ratios = [row["ratio"] for row in own]
        mean = exp(sum(map(log, ratios)) / len(ratios))
        # No bars, whose lengths mean nothing on a logarithmic axis.
        axes.plot(mean, place, "D", color=frameworks[own[0]["backend"]], markersize=9)
        axes.plot(ratios, [place] * len(ratios), "o", color="black", markersize=3.5, alpha=0.7)
        axes.text(max(*ratios, mean) * 1.12, place, f"{mean:.1f}", va="center", fontsize=9)
        labels.append((place, f"{peer} ({own[0]['backend']})"))
    axes.set_yticks(*zip(*labels, strict=True))
    axes.axvline(1, color="black", linewidth=1)
    most = max(row["ratio"] for row in rows)
    axes.set(xscale="log", xlim=(0.5, most * 2), ylim=(len(labels) - 0.5, -0.5))
    axes.set_xlabel("lcmulti trains this many times as fast (float32)")
    ticks = [t for t in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if t < most * 2]
    axes.set_xticks(ticks, map(str, ticks))
    axes.minorticks_off()
    machine = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    axes.set_title(
        f"{machine['cores']} cores, {machine['processor']}; {versions}", fontsize=8, loc="left"
    )
    figure.savefig(FOLDER / "speed.svg", metadata={"Date": None})


def main():
    """Measure unless told not to, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draw", action="store_true", help="from speed.json")
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    if not arguments.draw:
        measure(arguments.repeat)
    draw(json.loads((FOLDER / "speed.json").read_text("utf-8")))


if __name__ == "__main__":
    main()
