"""``lcmulti parity``: prove every installed backend equal to the reference."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lcmulti.cli.arguments import Subparsers, check_files, names, with_doubles
from lcmulti.dtypes import DTYPES
from lcmulti.errors import Interrupted
from lcmulti.files import write_file

if TYPE_CHECKING:
    from lcmulti.conformance.parity import Progress
    from lcmulti.conformance.report import Report

__all__ = ["add_parser", "run"]

DESCRIPTION = """\
Compute locally connected layers on every installed backend, the value and all
gradients, and hold each element to its forward error bound around the float64
reference: |err| <= (n + 2) u (|x| conv |w| + |b|). Hold the reference itself
against plain loops in extended precision. Train a classifier of handwritten
digits on every backend and compare the loss curves.

The numbers in the table are the worst element's error as a fraction of its
bound; up to 1 is what rounding explains.
"""

EXAMPLES = """\
examples:
  lcmulti parity                                  everything, on all backends
  lcmulti parity --backends torch,numpy --cases docs,traps --no-training
  lcmulti parity --cases 'same_*' --dtype float16
  lcmulti parity --memory 8GiB --html report.html --junit report.xml
  lcmulti parity --input mine.npy                 your own array (N, *size, C)

exit code: 0 all within the bound, 1 a miss, 2 a wrong call, 130 interrupted
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "parity",
        help="prove all installed backends equal to the reference",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--backends", type=names, metavar="NAMES", help="comma-separated; default: all installed")
    add(
        "--cases",
        type=names,
        metavar="NAMES",
        help="comma-separated names, globs or groups (docs, workloads, traps); default: all, "
        "or with --input none but that",
    )
    add("--dtype", default="float32", help=f"{', '.join(DTYPES)}; default float32")
    add(
        "--memory",
        default="2GiB",
        metavar="SIZE",
        help="skip cases estimated to take more; default 2GiB",
    )
    add(
        "--input",
        type=Path,
        metavar="FILE.npy",
        help="an array (N, *size, C) of your own: one more case, window 3, 8 filters",
    )
    add("--no-training", action="store_true", help="do not train on the handwritten digits")
    add("--json", type=Path, metavar="FILE", help="write the report as JSON")
    add("--junit", type=Path, metavar="FILE", help="write the report as JUnit XML")
    add("--html", type=Path, metavar="FILE", help="write the report as HTML, with plots")
    add("--list-cases", action="store_true", help="list the cases and do nothing else")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from lcmulti.conformance.parity import parity

    if args.list_cases:
        return _list_cases(args.cases)
    check_files(args, "json", "junit", "html")
    if args.html is not None:
        from lcmulti.conformance import html

        html.require()
    try:
        with with_doubles(args.dtype), _progress() as progress:
            report = parity(
                backends=args.backends,
                cases=args.cases,
                dtype=args.dtype,
                memory=args.memory,
                input=args.input,
                progress=progress,
                training=not args.no_training,
            )
    except Interrupted as interrupt:
        report = interrupt.report
    _print(report)
    _write(args, report)
    if report.interrupted:
        return 130
    return 0 if report.ok else 1


def _list_cases(names: list[str] | None) -> int:
    from lcmulti.cli import output
    from lcmulti.conformance.cases import select

    listing = output.table("Cases", "case", "group", "input", "kernel", "filters", "batch")
    for case in select(names):
        sizes = ("x".join(map(str, each)) for each in (case.input_shape, case.spec.kernel_size))
        listing.add_row(case.name, case.group, *sizes, str(case.filters), str(case.batch))
    output.console().print(listing)
    return 0


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None] | None]:
    """A progress bar on stderr if it is a terminal; nothing otherwise."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from lcmulti.cli import output

    console = output.console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda p: bar.update(task, completed=p.done, total=p.total, description=p.text)


def _print(report: Report) -> None:
    from lcmulti.cli import output

    console, backends = output.console(), report.backends
    cases: dict[str, dict[str, str]] = {}
    for record in report.records:
        shown = f"{record.fraction:.3f}" if record.fractions else "-"
        cases.setdefault(record.case, {})[record.backend] = shown if record.ok else f"{shown} MISS"
    if cases:
        listing = output.table(f"Worst error / bound, {report.dtype}", "case", *backends)
        for name, cells in cases.items():
            listing.add_row(name, *(cells.get(backend, "") for backend in backends))
        console.print(listing)
    if report.training:
        runs = output.table(
            "Training on handwritten digits, float32",
            "backend", "first loss", "last loss", "test accuracy", "curve distance / bound",
        )  # fmt: skip
        for curve in report.training:
            first, *_, last = [f"{loss:.6f}" for loss in curve.losses] or ["-", "-"]
            runs.add_row(
                curve.backend, first, last, f"{curve.accuracy:.1%}", f"{curve.fraction:.3f}"
            )
        console.print(runs)
    for skip in report.skips:
        console.print(f"skipped {skip.case} on {skip.backend}: {skip.reason}")
    for absent in report.absent:
        console.print(f"absent  {absent.backend}: {absent.reason}")
    for miss in report.misses:
        case = getattr(miss, "case", "training")
        console.print(f"MISS    {case} on {miss.backend}: {miss.problem}")
    console.print(report.verdict(), soft_wrap=True)


def _write(args: argparse.Namespace, report: Report) -> None:
    """Write the requested files."""
    if args.json is not None:
        write_file(args.json, report.to_json())
    if args.junit is not None:
        write_file(args.junit, report.to_junit())
    if args.html is not None:
        from lcmulti.conformance import html

        write_file(args.html, html.render(report))
