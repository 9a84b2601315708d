"""The report as a picture: a roofline plot and a bar chart of times."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from lcmulti.bench.report import Report, Row
from lcmulti.errors import ArgumentError, MissingExtraError
from lcmulti.files import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

__all__ = ["SUFFIXES", "draw", "require"]

SUFFIXES = (".png", ".svg")
COLOURS = {"numpy": "#4c72b0", "torch": "#dd8452", "jax": "#55a868", "tensorflow": "#c44e52"}
OTHER = "#8172b3"
MARKERS = {"ours": "o", "peer": "x"}


def require(path: Path) -> None:
    """Raise before the work begins if its picture could not be drawn.

    Raises
    ------
    ArgumentError
        If *path* ends in neither ``.png`` nor ``.svg``.
    MissingExtraError
        Without matplotlib.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ArgumentError("--plot", "a file ending in .png or .svg", str(path))
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            'a plot needs matplotlib; install it with: pip install "lcmulti[report]"'
        ) from error


def draw(report: Report, path: Path) -> None:
    """Write the picture. Raises `FileError` if it cannot be written, and as `require`."""
    require(path)
    import matplotlib
    from matplotlib.figure import Figure

    rows = [row for row in report.rows if row.seconds and row.kind != "variant"]
    height = 1.0 + 0.2 * len(rows) + 0.3 * len(report.workloads)
    figure = Figure(figsize=(8, 3.5 + height), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(3.5, height))
    _roofline(above, report, rows)
    _dots(below, report, rows)
    machine = report.machine
    if machine is not None:
        versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
        where = f"{machine.name}; {versions}"
        figure.suptitle(f"{report.mode}, {report.dtype}; {where}", fontsize=9)
    # Without a date and random names, equal reports give equal files.
    metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
    with matplotlib.rc_context({"svg.hashsalt": "lcmulti"}):
        drawn = BytesIO()
        figure.savefig(drawn, format=path.suffix[1:].lower(), dpi=120, metadata=metadata)
    write_file(path, drawn.getvalue())


def _roofline(axes: Axes, report: Report, rows: list[Row]) -> None:
    """Rate over arithmetic intensity, below the roofline of the machine."""
    machine = report.machine
    maps = 3 if report.mode == "training" else 1
    intensities = []
    for row in rows:
        (workload,) = (each for each in report.workloads if each.name == row.workload)
        flops = workload.spec.flops(row.batch)
        intensity = flops / workload.spec.bytes(row.batch, report.dtype)
        intensities.append(intensity)
        colour = COLOURS.get(row.backend, OTHER)
        rate = maps * flops / (row.seconds or 1) / 1e9
        axes.plot(intensity, rate, MARKERS[row.kind], color=colour, alpha=0.8)
    if machine is not None and intensities:
        ridge = machine.rate / machine.bandwidth
        low, high = min(*intensities, ridge) / 3, max(*intensities, ridge) * 3
        top = machine.rate / 1e9
        axes.plot([low, ridge, high], [low / ridge * top, top, top], color="black")
        for workload in report.workloads:
            intensity = workload.spec.flops(workload.batch) / workload.spec.bytes(
                workload.batch, report.dtype
            )
            axes.axvline(intensity, color="grey", linewidth=0.5, zorder=0)
            axes.annotate(
                workload.name, (intensity, 0.02), xycoords=("data", "axes fraction"),
                rotation=90, fontsize=6, color="grey", ha="right", va="bottom",
            )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="flops per byte", ylabel="Gflop/s")
    _plain_numbers(axes.xaxis)
    _plain_numbers(axes.yaxis)
    axes.set_title("Beside what this machine can do", fontsize=10)
    for backend in dict.fromkeys(row.backend for row in rows):
        axes.plot([], [], "o", color=COLOURS.get(backend, OTHER), label=backend)
    axes.plot([], [], "x", color="grey", label="peer")
    axes.legend(fontsize=8, loc="lower right")


def _plain_numbers(axis: Axis) -> None:
    """Label the ticks of a logarithmic axis 2, 5, 10 instead of powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=9))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def _dots(axes: Axes, report: Report, rows: list[Row]) -> None:
    """Median and quartiles of each row, grouped by workload."""
    place, ticks, labels = 0.0, [], []
    for workload in report.workloads:
        own = [row for row in rows if row.workload == workload.name]
        if not own:
            continue
        ticks.append(place)
        labels.append(f"{workload.name}, batch {workload.batch}")
        for row in own:
            place += 1
            seconds = row.seconds or 0.0
            # Dots, because the length of a bar means nothing on a logarithmic axis.
            axes.errorbar(
                seconds * 1e3, place, xerr=seconds * (row.spread or 0) * 1e3, fmt="o",
                color=COLOURS.get(row.backend, OTHER), ecolor="black",
                alpha=1 if row.auto else 0.55,
                markerfacecolor="none" if row.kind == "peer" else None,
            )  # fmt: skip
            axes.plot(row.roofline * 1e3, place, "|", color="black", markersize=9)
            ticks.append(place)
            labels.append(f"{row.backend} {row.name}{' (auto)' if row.auto else ''}")
        place += 1.5
    axes.set_yticks(ticks, labels, fontsize=7)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="ms; | is the roofline; hollow: peers")
    _plain_numbers(axes.xaxis)
    axes.set_title("Time", fontsize=10)
