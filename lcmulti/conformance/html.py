"""The report as one HTML page with plots, which needs no other file."""

from __future__ import annotations

import base64
import io
import math
from importlib import resources
from typing import Any

from lcmulti.conformance.report import Report
from lcmulti.errors import MissingExtraError

__all__ = ["render", "require"]

MARKERS = "os^Dvx+*<>"


def require() -> None:
    """Raise `MissingExtraError` before minutes of work."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f'an HTML report needs {error.name}; install it with: pip install "lcmulti[report]"'
        ) from error


def render(report: Report) -> str:
    """The page."""
    require()
    import jinja2

    folder = resources.files(__package__) / "data"
    template = (folder / "report.html.j2").read_text(encoding="utf-8")
    # The page shows names of files and messages of third-party backends: escape everything.
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    plots = {"errors": _errors(report), "curves": _curves(report)}
    page: str = environment.from_string(template).render(
        report=report, plots={name: plot for name, plot in plots.items() if plot}
    )
    return page


def _errors(report: Report) -> str:
    """Worst error over bound, one row per case and one marker per backend."""
    from matplotlib.figure import Figure

    records = [record for record in report.records if record.fractions]
    if not records:
        return ""
    rows = {case: row for row, case in enumerate(dict.fromkeys(r.case for r in records))}
    figure = Figure(figsize=(9, 1.5 + 0.2 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for index, name in enumerate(dict.fromkeys(r.backend for r in records)):
        own = [r for r in records if r.backend == name and 0 < r.fraction < math.inf]
        axes.plot(
            [r.fraction for r in own],
            [rows[r.case] for r in own],
            MARKERS[index % len(MARKERS)],
            label=name,
            alpha=0.7,
        )
    axes.axvline(1, color="black", linewidth=1)
    axes.set(xscale="log", xlabel="worst error / bound", ylim=(len(rows) - 0.5, -0.5))
    axes.set_yticks(list(rows.values()), list(rows), fontsize=7)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return _data_uri(figure)


def _curves(report: Report) -> str:
    """Loss of every step, one line per backend; the lines coincide."""
    from matplotlib.figure import Figure

    runs = [curve for curve in report.training if curve.losses]
    if not runs:
        return ""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    for index, curve in enumerate(runs):
        # Later lines are thinner, so that those below are visible.
        width = 1 + 1.5 * (len(runs) - 1 - index)
        axes.plot(curve.losses, label=curve.backend, linewidth=width)
    axes.set(xlabel="step", ylabel="loss (mean cross-entropy)", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    return _data_uri(figure)


def _data_uri(figure: Any) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode("ascii")
