"""``lcmulti convert``: convert a model of Keras 2 to Keras 3."""

from __future__ import annotations

import argparse
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from lcmulti.cli.arguments import Subparsers

__all__ = ["add_parser", "run"]

DESCRIPTION = """\
Load a model with locally connected layers that Keras 2 or tf_keras wrote and
save it as a .keras file of Keras 3, which loads wherever lcmulti_keras is
imported. OLD is a .h5 or .keras file, the model.json of a TensorFlow.js layers
model, or what model.to_json() gave, and then WEIGHTS is a file of its weights.
The old file is taken for a stranger's: none of its code runs, and no other
program opens it. Where tf_keras is installed, both models are run on a random
input and the largest difference is told. All files are written, or none.
"""

EXAMPLES = """\
examples:
  lcmulti convert old.h5 new.keras
  lcmulti convert old.h5 new.keras --safetensors new.safetensors
  lcmulti convert model.json weights.h5 new.keras
  KERAS_BACKEND=jax lcmulti convert old.keras new.keras --no-compare

The safetensors file holds the locally connected layers in lcmulti's layout,
NAME.kernel and NAME.bias, for use from PyTorch or JAX:

  lcmulti.load_weights("new.safetensors", layer="NAME", backend="torch")
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "convert",
        help="bring a model that Keras 2 wrote to Keras 3",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("old", type=Path, metavar="OLD", help="the file to read")
    add("weights", type=Path, nargs="?", metavar="WEIGHTS", help="its weights, of a JSON file")
    add("new", type=Path, metavar="NEW", help="the .keras file to write")
    add("--safetensors", type=Path, metavar="FILE", help="also write the layers' weights there")
    add("--no-compare", action="store_true", help="do not run both models on a random input")
    add("--overwrite", action="store_true", help="replace files that exist")
    add("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from lcmulti.errors import ArgumentError, printable

    if args.new.suffix != ".keras":
        raise ArgumentError("NEW", "a name that ends in .keras", str(args.new))
    _check_names(args)
    from lcmulti.cli import output

    console = output.console(stderr=True)
    with console.status(f"loading {printable(args.old)}"):
        from lcmulti_keras.legacy import converting

        found = converting.convert(args.old, args.new, args.safetensors, args.weights)
    difference: float | str = "not compared"
    if not args.no_compare:
        with console.status("running both models on a random input"):
            difference = converting.difference(args.old, found, args.weights)
    report = converting.report(found) | {"difference": difference}
    if args.json:
        output.print_json(report)
    else:
        _show(args, report)
    return 0


def _check_names(args: argparse.Namespace) -> None:
    """Check that each output is new or may be replaced, and is not another file of the command."""
    from lcmulti.errors import ArgumentError, described

    read = {"OLD": args.old, "WEIGHTS": args.weights}
    written = {"NEW": args.new, "--safetensors": args.safetensors}
    seen: dict[str, str] = {}
    for name, path in (read | written).items():
        if path is None:
            continue
        place = str(path)
        with suppress(OSError, ValueError):
            place = os.path.realpath(path)
        if name in written and place in seen:
            shown = described(f"{path}, which is {seen[place]}")
            raise ArgumentError(name, "a file of its own", shown)
        seen[place] = name
        if name in written and os.path.lexists(path) and not args.overwrite:
            shown = described(f"{path}, which exists; replace it with --overwrite")
            raise ArgumentError(name, "a new file", shown)


def _show(args: argparse.Namespace, report: dict[str, Any]) -> None:
    from lcmulti.cli import output

    console = output.console()
    table = output.table("", "layer", "class", "output", "weights", "stored as")
    for row in report["layers"]:
        table.add_row(*map(str, row.values()))
    console.print(table)
    grid = output.grid()
    grid.add_row("written by", f"Keras {report['version']}")
    grid.add_row("difference", str(report["difference"]))
    grid.add_row("not carried over", ", ".join(report["lost"]) or "nothing")
    for path in (args.new, args.safetensors):
        if path is not None:
            grid.add_row("wrote", str(path))
    console.print(grid)
