"""The command ``lcmulti``.

Each subcommand is a module with ``add_parser(subparsers)`` and ``run(args) -> int``. Building the
parser imports no framework; ``run`` imports what it needs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from lcmulti import __version__
from lcmulti.cli import backends, bench, certify, config, convert, explain, parity, tune, view
from lcmulti.cli.interrupts import heard_interrupts
from lcmulti.cli.noise import without_noise
from lcmulti.errors import LcmultiError, printable

__all__ = ["main"]

MOST_SAID = 2000
"""Characters of an error that are shown."""

BROKEN_PIPE = 141
"""The exit code that a shell reports for a program ended by SIGPIPE."""

DESCRIPTION = """\
Locally connected layers (convolutions with unshared weights) for NumPy,
PyTorch, JAX and TensorFlow, proven equal to one reference.
"""

EXAMPLES = """\
examples:
  lcmulti backends                          what is installed and what it can do
  lcmulti parity                            prove them equal to the reference
  lcmulti certify torch                     hold one to all lcmulti promises
  lcmulti explain --input 32x32x3 --kernel 3 --filters 64
  lcmulti config set max_workspace 64MiB
  lcmulti convert old.h5 new.keras          bring a Keras 2 model to Keras 3
  lcmulti view model.keras --html           its filters, as a page
  lcmulti bench                             time it here, beside what others do
  lcmulti tune --input 32x32x3 --kernel 3 --filters 64 --batch 32

Every command has its own help: lcmulti parity --help
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors show unknown arguments shortened and without control characters."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="lcmulti",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lcmulti {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (backends, config, explain, parity, certify, convert, view, bench, tune):
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns
    -------
    int
        0; 1 if ``parity`` found a miss or ``certify`` did not certify; 2 for a wrong call, with one
        line on stderr; 130 after an interrupt; 141 if nobody reads the output any more.
    """
    parser = _parser()
    args, unknown = parser.parse_known_args(argv)
    if unknown and not hasattr(args, "unknown"):
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    args.unknown = unknown
    with without_noise():
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    try:
        with heard_interrupts():
            code: int = args.run(args)
        sys.stdout.flush()
    except LcmultiError as error:
        print(f"lcmulti: {printable(error, MOST_SAID)}", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"lcmulti: out of memory ({error or 'no more is said'})", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lcmulti: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Python flushes stdout again when it exits; that must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return code
