"""``lcmulti certify``: hold a backend to everything lcmulti promises."""

from __future__ import annotations

import argparse
from pathlib import Path

from lcmulti.cli.arguments import Subparsers

__all__ = ["add_parser", "run"]

DESCRIPTION = """\
Run the conformance suite on a backend and every implementation it has, or on
one implementation: values and derivatives of fixed and random geometries, every
size, the whole range of each type, properties, memory and threads, the contract
and wrong calls. What the backend declares decides what is skipped. The core,
float32 with implementation="auto", is never skipped. The last lines say how
long it took and the verdict.
"""

EXAMPLES = """\
examples:
  lcmulti certify torch
  lcmulti certify numpy --implementation blocked --certificate blocked.md
  lcmulti certify jax --nightly --json jax.json --junit jax.xml
  lcmulti certify torch --quick             a sample, while you write it
  lcmulti certify torch --check test_any_call -k call-17
  lcmulti certify torch -k gradients -x     any further argument is pytest's

Part of the suite certifies nothing: with --check, -k and the like the exit
code is 1.

exit code: 0 certified (with --quick: nothing was wrong), 1 not certified,
2 a wrong call, 130 interrupted
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "certify",
        help="hold a backend to everything lcmulti promises",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("backend", metavar="NAME", help="a registered backend")
    add(
        "--implementation",
        metavar="NAME",
        help="only this way to compute; default: auto and each",
    )
    add("--device", metavar="DEVICE", help="cpu or gpu; default: where the backend places arrays")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--quick",
        action="store_true",
        help="a sample of every check, which certifies nothing",
    )
    how.add_argument(
        "--nightly",
        action="store_true",
        help="10,000 examples of each property and 2,000 calls, not 50 and 200: hours",
    )
    add(
        "--check",
        action="append",
        default=[],
        metavar="NAME",
        help="only this check, as a failure names it; may be given several times",
    )
    add(
        "--seed",
        type=int,
        metavar="N",
        help="seed of the random examples; default 0, with --nightly a new one each time",
    )
    add(
        "--processes",
        type=int,
        metavar="N",
        help="processes that share the checks; default: one for each core, at most 4",
    )
    add("--json", type=Path, metavar="FILE", help="write everything as JSON")
    add("--junit", type=Path, metavar="FILE", help="write JUnit XML")
    add("--certificate", type=Path, metavar="FILE", help="write one page of Markdown")
    # Arguments that this parser does not know are for pytest; `main` puts them here.
    parser.set_defaults(run=run, unknown=[])


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from lcmulti.conformance import certify

    result = certify(
        args.backend,
        implementation=args.implementation,
        device=args.device,
        json=args.json,
        junit=args.junit,
        certificate=args.certificate,
        nightly=args.nightly,
        quick=args.quick,
        checks=args.check,
        seed=args.seed,
        quiet=False,
        arguments=args.unknown,
        processes=args.processes,
    )
    return 0 if result.ok or (result.is_quick and not result.failures) else 1
