"""Draw the pictures of docs/how_it_works.md.

    python docs/figures/draw.py

One picture shows which part of lcmulti calls which, the other the three maps of a small 1D layer.
"""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

FOLDER = Path(__file__).parent
matplotlib.rcParams["svg.hashsalt"] = "lcmulti"  # so that the file is the same each time
CORE, BACKEND, WAY, PEOPLE = "#dbe7f3", "#f6e3d3", "#dcefdc", "#eeeeee"


def box(axes, x, y, width, height, text, colour, size=9):
    """A rounded box with text in the middle."""
    axes.add_patch(
        FancyBboxPatch(
            (x, y), width, height, boxstyle="round,pad=0.02,rounding_size=0.08",
            facecolor=colour, edgecolor="#555555", linewidth=0.8,
        )
    )  # fmt: skip
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size)


def arrow(axes, start, stop, colour="#555555", style="-|>"):
    """A straight arrow."""
    axes.add_patch(FancyArrowPatch(start, stop, arrowstyle=style, mutation_scale=10, color=colour))


def blank(width, height, right, top):
    """Axes without a frame."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, right), ylim=(0, top), aspect="equal")
    axes.axis("off")
    return figure, axes


def house():
    """Draw the way from a call to its result."""
    figure, axes = blank(9, 5.4, 10, 6)
    box(axes, 0.2, 5.1, 9.6, 0.7, "layers: torch.nn, Flax NNX, Equinox, Keras 3", PEOPLE)
    call = "lcmulti.local_conv(x, kernel, bias, strides=..., padding=...)"
    box(axes, 0.2, 3.9, 9.6, 0.8, call, CORE, 10)
    for x, text in (
        (0.2, "spec\narguments become facts,\nonce for each geometry"),
        (3.45, "dispatch\nwhich backend,\nwhich implementation"),
        (6.7, "settings\ncall, config, environment,\nfiles, defaults"),
    ):
        box(axes, x, 2.6, 3.1, 0.95, text, CORE, 8)
    for index, name in enumerate(("NumPy", "PyTorch", "JAX", "TensorFlow", "yours")):
        x = 0.2 + 1.95 * index
        rules = "no differentiation" if name == "NumPy" else "derivative rules"
        box(axes, x, 1.35, 1.8, 0.85, f"{name}\n{rules}", BACKEND, 8)
        box(axes, x, 0.15, 1.8, 0.85, "implementations\nthree maps each", WAY, 8)
        arrow(axes, (x + 0.9, 1.35), (x + 0.9, 1.02))
        arrow(axes, (x + 0.9, 2.58), (x + 0.9, 2.22))
    arrow(axes, (5, 5.1), (5, 4.72))
    arrow(axes, (5, 3.9), (5, 3.57))
    return figure


def maps():
    """Draw which elements each map connects: five inputs, windows of three, three positions."""
    figure = Figure(figsize=(9, 2.9), layout="constrained")
    titles = (
        ("forward", "x, kernel to y"),
        ("input_grad", "dy, kernel to dx"),
        ("kernel_grad", "x, dy to dkernel"),
    )
    for axes, (name, what) in zip(figure.subplots(1, 3), titles, strict=True):
        axes.set(xlim=(-0.7, 4.7), ylim=(-0.75, 2.8), aspect="equal")
        axes.axis("off")
        axes.set_title(f"{name}\n{what}", fontsize=10)
        for position, colour in enumerate(("#4c72b0", "#dd8452", "#55a868")):
            top = (position + 1, 2.3)
            for tap in range(3):
                bottom = (position + tap, 0)
                ends = (top, bottom) if name == "input_grad" else (bottom, top)
                line = FancyArrowPatch(
                    *ends, arrowstyle="-" if name == "kernel_grad" else "-|>", mutation_scale=9,
                    color=colour, shrinkA=10, shrinkB=10,
                    linewidth=2.6 if name == "kernel_grad" else 1.2,
                )  # fmt: skip
                axes.add_patch(line)
            axes.plot(*top, "o", markersize=19, color=colour)
            label = "y" if name == "forward" else "dy"
            axes.text(*top, label, ha="center", va="center", color="white", fontsize=9)
        for index in range(5):
            axes.plot(index, 0, "o", markersize=19, color="#777777")
            label = "dx" if name == "input_grad" else "x"
            axes.text(index, 0, label, ha="center", va="center", color="white", fontsize=9)
        note = {
            "forward": "a line is one weight; no two are shared",
            "input_grad": "the same lines, walked backwards",
            "kernel_grad": "each line's own x times its own dy",
        }
        axes.text(2, -0.7, note[name], ha="center", va="bottom", fontsize=8.5)
    return figure


def main():
    """Write both pictures."""
    for draw in (house, maps):
        draw().savefig(FOLDER / f"{draw.__name__}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
