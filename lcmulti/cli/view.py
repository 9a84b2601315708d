"""``lcmulti view``: pictures of the weights in a file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lcmulti.cli.arguments import Subparsers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["add_parser", "run"]

DESCRIPTION = """\
Draw the filters of a locally connected layer: a mosaic of the filters of every
position; with --map, one number for each of them; with --html, a page on which
you point at a position and see its filters and its window on the input.

FILE is what lcmulti.save_weights or lcmulti convert wrote, a model of Keras 2
or 3 (.h5, .keras), a state dict of PyTorch (.pt, .pth, .bin, .safetensors) or
arrays by name (.npz). No code in it is run.

The numbers: norm, the length of a filter; orientation, of the stripes it
prefers; selectivity, how much it prefers them; distance, from the mean of this
filter over positions.
"""

EXAMPLES = """\
examples:
  lcmulti view weights.safetensors                     weights.png
  lcmulti view old.h5 --layer local_1 -o filters.svg
  lcmulti view model.keras --map orientation --sheet 8x8
  lcmulti view state.pt --layer features.0 --html      state.html
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "view",
        help="draw the filters of a layer in a file",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="where the weights are")
    add("--layer", metavar="NAME", help="which layer, of a file that holds several")
    add("-o", "--output", type=Path, metavar="FILE", help=".png, .svg, .pdf or .html to write")
    add("--html", action="store_true", help="write a page instead of a picture")
    add("--map", metavar="STATISTIC", help="norm, orientation, selectivity or distance")
    add("--sheet", metavar="AxB", help="lay a position's filters on A rows and B columns")
    add("--overwrite", action="store_true", help="replace a file that exists")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from lcmulti.errors import ArgumentError, described
    from lcmulti.files import write_file
    from lcmulti.geometry.arguments import choice
    from lcmulti.plot import STATISTICS
    from lcmulti.plot.reading import layers_in

    html = args.html or (args.output is not None and args.output.suffix.lower() == ".html")
    output = args.output or args.file.with_suffix(".html" if html else ".png")
    kinds = (".html",) if html else (".png", ".svg", ".pdf")
    if output.suffix.lower() not in kinds:
        raise ArgumentError("--output", f"a name that ends in {' or '.join(kinds)}", str(output))
    if output.exists() and not args.overwrite:
        shown = described(f"{output}, which exists; replace it with --overwrite")
        raise ArgumentError("--output", "a new file", shown)
    if html and args.map is not None:
        raise ArgumentError("--map", "nothing with --html, whose page has all of them", args.map)
    if args.map is not None:
        choice("--map", args.map, STATISTICS)
    sheet = None if args.sheet is None else _sheet(args.sheet)
    layers = {each.name: each for each in layers_in(args.file)}
    if (args.layer is None and len(layers) > 1) or args.layer not in (None, *layers):
        names = ", ".join(map(repr, layers))
        shown = described("no --layer") if args.layer is None else args.layer
        raise ArgumentError("--layer", f"one of the layers of {args.file}: {names}", shown)
    found = layers[args.layer] if args.layer is not None else next(iter(layers.values()))
    if html:
        from lcmulti.plot.page import page

        text = page(
            found.kernel, found.spec, name=found.name or args.file.name, sheet=sheet,
            transposed=found.transposed,
        )  # fmt: skip
        write_file(output, text)
    else:
        from lcmulti import plot

        ax = (
            plot.mosaic(found.kernel, sheet=sheet)
            if args.map is None
            else plot.statistic_map(found.kernel, args.map, sheet=sheet)
        )
        write_file(output, _drawn(ax, output.suffix[1:].lower()))
    print(f"wrote {output}")
    return 0


def _drawn(ax: Axes, kind: str) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    ax.figure.savefig(buffer, format=kind, dpi=150)
    return buffer.getvalue()


def _sheet(text: str) -> tuple[int, int]:
    from lcmulti.errors import ArgumentError

    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() for side in sides):
        raise ArgumentError("--sheet", "two numbers such as 8x8", text)
    return int(sides[0]), int(sides[1])
