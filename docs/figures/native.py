"""Draw the speed of the native kernels from the kept results (docs/performance.md).

    python docs/figures/native.py

On the left is the time over the roofline by layer, with a line at one. On the right is how many
times as long the fastest peer of each framework takes, by layer, with the geometric mean as a
diamond. This script measures nothing; the page has the commands that measure.
"""

import json
from math import exp, log
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

FOLDER = Path(__file__).parent
RESULTS = FOLDER.parents[1] / "asv_benches" / "results"
FRAMEWORKS = {"torch": "PyTorch", "jax": "JAX", "tensorflow": "TensorFlow"}
COLORS = {"torch": "#dd8452", "jax": "#55a868", "tensorflow": "#c44e52"}
matplotlib.rcParams["svg.hashsalt"] = "lcmulti"  # so that the file is the same each time


def kept(name):
    """A machine in words, and rows by layer."""
    found = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    machine = found["machine"]
    words = f"{machine['cores']} cores, {machine['processor']}, {machine['instructions']}"
    return words, machine["versions"], found["rows"]


def roofline(axes):
    """A dot for forward and one for forward + backward."""
    words, versions, rows = kept("roofline_float32")
    for place, row in enumerate(rows.values()):
        axes.plot([row["forward x"], row["both x"]], [place] * 2, color="#b0b0b0", linewidth=1.5)
    places = range(len(rows))
    for key, marker, label in (
        ("forward x", "o", "forward"),
        ("both x", "D", "forward + backward"),
    ):
        values = [row[key] for row in rows.values()]
        axes.plot(values, places, marker, color="#4c72b0", label=label, markersize=5,
                  markerfacecolor="#4c72b0" if marker == "D" else "white")  # fmt: skip
    axes.set_yticks(places, rows, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=1)
    axes.set(xlim=(0, None), xlabel="times the roofline (kernels, float32)")
    axes.legend(fontsize=8, loc="lower right")
    axes.set_title(f"{words}; numpy {versions['numpy']}", fontsize=8, loc="left")


def peers(axes):
    """A diamond for each framework, a dot for each layer."""
    labels = []
    for place, (name, shown) in enumerate(FRAMEWORKS.items()):
        words, versions, rows = kept(f"against_{name}")
        ratios = [row["best peer x"] for row in rows.values() if row["best peer x"]]
        mean = exp(sum(map(log, ratios)) / len(ratios))
        axes.plot(mean, place, "D", color=COLORS[name], markersize=9)
        axes.plot(ratios, [place] * len(ratios), "o", color="black", markersize=3.5, alpha=0.7)
        axes.text(max(ratios) * 1.15, place, f"{mean:.1f}", va="center", fontsize=9)
        labels.append(f"{shown} {versions[name].partition('+')[0]}\n{words.partition(', ')[2]}")
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.axvline(1, color="black", linewidth=1)
    ticks = (1, 2, 5, 10, 20, 50, 100)
    axes.set(xscale="log", xlim=(0.8, 200), xlabel="times as long: each layer's fastest peer")
    axes.set_xticks(ticks, map(str, ticks))
    axes.minorticks_off()
    axes.set_title("whole training calls, float32", fontsize=8, loc="left")


def main():
    """Write native.svg."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    roofline(left)
    peers(right)
    figure.savefig(FOLDER / "native.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
