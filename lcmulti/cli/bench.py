"""``lcmulti bench``: how fast a layer is here, and how to make it faster."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lcmulti.cli.arguments import Subparsers, check_files, names, with_doubles
from lcmulti.cli.explain import add_geometry, spec_from
from lcmulti.errors import ArgumentError, Interrupted, described
from lcmulti.files import write_file

if TYPE_CHECKING:
    from rich.table import Table

    from lcmulti.bench import Report, Row, Workload

__all__ = ["add_parser", "run"]

DESCRIPTION = """\
Time locally connected layers on this machine: every installed backend and
implementation, and what people use instead where it is installed. Memory
bandwidth and the rate of matrix products are measured first. Then each way to
compute is called once, its outputs are compared with the reference, and all
ways are timed in turns. The last lines advise what would be faster here.

A row's time is the median of its calls; the spread is half the distance
between the quartiles. "x roof" is the time over the roofline, which is the
least time that this machine needs. "x auto" is the time over that of the row
marked *, which implementation="auto" takes on the same backend.
"""

EXAMPLES = """\
examples:
  lcmulti bench                             two small published layers
  lcmulti bench deepface_l4 --mode training --plot deepface.png
  lcmulti bench --input 63x63x16 --kernel 9 --filters 16 --batch 32
  lcmulti bench grid_256 --backends torch,jax --no-peers --json grid.json
  lcmulti bench --list                      the published layers

Ctrl-C leaves what was measured, in the table and in the files asked for.

exit code: 0, 2 a wrong call, 130 interrupted
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "bench",
        help="time layers here, beside the machine's roofline and peers",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("workloads", nargs="*", metavar="WORKLOAD", help="published layers, see --list")
    add("--batch", type=int, metavar="N", help="default: a published layer's own, or 32")
    add("--mode", default="forward", help="forward (default), or training: with both gradients")
    add("--dtype", default="float32", help="float32 (default), float64, bfloat16 or float16")
    add("--device", default="cpu", help="cpu or gpu; default cpu")
    add("--backends", type=names, metavar="NAMES", help="comma-separated; default: all installed")
    add("--implementations", type=names, metavar="NAMES", help="default: all; auto is always timed")
    add("--no-peers", action="store_true", help="only ours, not what people use instead")
    add("--no-variants", action="store_true", help="no other data format or batch")
    add("--repeat", type=int, default=5, metavar="N", help="calls of each; default 5")
    add("--memory", metavar="SIZE", help="for one workload, as 8GiB; default half of what is free")
    add("--limit", type=float, default=60, metavar="S", help="seconds of one call; default 60")
    add("--plot", type=Path, metavar="FILE", help="write a picture, .png or .svg")
    add("--json", type=Path, metavar="FILE", help="write everything as JSON")
    add("--list", action="store_true", help="list the published layers and do nothing else")
    add_geometry(parser.add_argument_group("a layer of your own"), required=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    import logging

    from lcmulti.bench import bench

    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # retracing is intended here
    if args.list:
        return _list()
    check_files(args, "json", "plot")
    if args.plot is not None:
        from lcmulti.bench import plot

        plot.require(args.plot)
    workloads = _workloads(args)
    try:
        with with_doubles(args.dtype), _watching() as watch:
            report = bench(
                workloads,
                backends=args.backends,
                implementations=args.implementations,
                peers=not args.no_peers,
                variants=not args.no_variants,
                mode=args.mode,
                dtype=args.dtype,
                device=args.device,
                batch=args.batch,
                repeat=args.repeat,
                limit=args.limit,
                memory=args.memory,
                watch=watch,
            )
    except Interrupted as interrupt:
        report = interrupt.report
    _print(report)
    _write(args, report)
    return 130 if report.interrupted else 0


def _list() -> int:
    from lcmulti.bench.workloads import cases
    from lcmulti.cli import output

    listing = output.table("Published layers", "name", "input", "kernel", "filters", "batch")
    for case in cases().values():
        sizes = ("x".join(map(str, each)) for each in (case.input_shape, case.spec.kernel_size))
        listing.add_row(case.name, *sizes, str(case.filters), str(case.batch))
    output.console().print(listing)
    return 0


def _workloads(args: argparse.Namespace) -> list[str | Workload] | None:
    """The workloads to time, or None for the default."""
    from lcmulti.bench import workload

    own = {"--input": args.input, "--kernel": args.kernel, "--filters": args.filters}
    missing = [name for name, value in own.items() if value is None]
    if len(missing) == len(own):
        return args.workloads or None
    if missing:
        needs = "a value: a layer of your own has --input, --kernel and --filters"
        raise ArgumentError(missing[0], needs, described("none"))
    return [*args.workloads, workload(spec_from(args), 32 if args.batch is None else args.batch)]


@contextmanager
def _watching() -> Iterator[Callable[[Report, str], None] | None]:
    """A growing table on stderr if it is a terminal; nothing otherwise."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from lcmulti.cli import output

    console = output.console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    live = Live(console=console, transient=True, refresh_per_second=4)

    def watch(report: Report, text: str) -> None:
        started = [each.name for each in report.workloads if report.of(each.name)]
        tables = [_table(report, started[-1], console.width)] if started else []
        live.update(Group(*tables, Text(text, no_wrap=True, overflow="ellipsis")))
        # Not earlier: messages that frameworks print when imported would break the table.
        live.start()

    try:
        yield watch
    finally:
        live.stop()


HEADS: tuple[str, ...] = "backend", "computed by", "ms", "spread", "x roof", "x auto"
NARROW = 64
"""In narrower terminals, a table has no spread, and the backend is in the column of the name."""


def _table(report: Report, name: str, width: int) -> Table:
    from lcmulti.cli import output

    (workload,) = (each for each in report.workloads if each.name == name)
    title = f"{name}, batch {workload.batch}, {report.mode}, {report.dtype}"
    shown = (row for row in report.of(name) if row.seconds or not row.problem)
    rows: list[tuple[str, ...]] = [_cells(report, row) for row in shown]
    heads, names = HEADS, 2
    if width < NARROW:
        heads, names = (HEADS[1], HEADS[2], *HEADS[4:]), 1
        rows = [(f"{row[0]} {row[1]}", row[2], *row[4:]) for row in rows]
    made = output.table(title, *heads)
    for column in made.columns[names:]:
        column.justify, column.no_wrap = "right", True
    for row in rows:
        made.add_row(*row)
    return made


def _cells(report: Report, row: Row) -> tuple[str, ...]:
    name = row.name + ("*" if row.auto else "")
    if row.kind == "variant":
        name = row.data_format if row.batch == _batch(report, row) else f"batch of {row.batch}"
    if row.seconds is None:
        return row.backend, name, "", "", "", ""
    relative, spread, over = report.relative(row), row.spread, row.seconds / row.roofline
    return (
        row.backend,
        name,
        f"{row.seconds * 1e3:.3g}" if row.seconds < 1 else f"{row.seconds * 1e3:,.0f}",
        "" if spread is None else f"{spread:.0%}",
        f"{over:.1f}" if over < 1000 else f"{over:,.0f}",
        "" if relative is None or row.auto else f"{relative:.2f}",
    )


def _batch(report: Report, row: Row) -> int:
    return next(each.batch for each in report.workloads if each.name == row.workload)


def _print(report: Report) -> None:
    from lcmulti.cli import output

    console, machine = output.console(), report.machine
    if machine is not None:
        console.print(
            f"{machine.name}: {machine.bandwidth / 1e9:.1f} GB/s, {machine.rate / 1e9:,.0f} Gflop/s"
        )
        versions = (f"{name} {version}" for name, version in machine.versions.items())
        console.print(f"{machine.system}, Python {machine.python}, {', '.join(versions)}\n")
    for workload in report.workloads:
        rows = report.of(workload.name)
        if not rows:
            continue
        console.print(_table(report, workload.name, console.width))
        troubles = output.grid()
        for row in rows:
            if row.problem is not None:
                troubles.add_row(f"{row.backend} {row.name}", row.problem)
        if troubles.row_count:
            console.print(troubles)
            console.print()
    for why in report.absent.values():
        console.print(why, soft_wrap=True)  # a command must stay on one line
    for line in report.advice:
        console.print(line)
    if report.interrupted:
        console.print("interrupted: this is what was measured until then")


def _write(args: argparse.Namespace, report: Report) -> None:
    """Write the files asked for."""
    if args.json is not None:
        write_file(args.json, report.to_json())
    if args.plot is not None:
        from lcmulti.bench import plot

        plot.draw(report, args.plot)
