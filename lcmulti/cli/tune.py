"""``lcmulti tune``: measure the fastest way to compute a layer on this machine, and keep it."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from lcmulti.cli.arguments import Subparsers
from lcmulti.cli.explain import add_geometry, spec_from
from lcmulti.dtypes import DTYPES

__all__ = ["add_parser", "run"]

DESCRIPTION = """\
Measure the ways in which kernels for GPUs can compute a layer, on this
machine's GPU, and keep the fastest for calls to come. Each map (the values,
and the gradients of the input and of the kernel) has tiles of its own. What is
kept belongs to the GPU, the version of Triton and that of the kernels.

Sizes are written 63x63x16 or 63,63,16. One number stands for all axes.
"""

EXAMPLES = """\
examples:
  lcmulti tune --input 63x63x16 --kernel 9 --filters 16 --batch 32
  lcmulti tune --input 160000x4 --kernel 16 --strides 16 --filters 4 \\
               --batch 64 --dtype bfloat16
  lcmulti explain --input 63x63x16 --kernel 9 --filters 16 --batch 32 \\
                  --backend torch --device gpu      # says what is taken

Without this command tiles are estimated. `lcmulti config set tiles measured`
measures each layer at its first call; `pinned` takes estimates alone.
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "tune",
        help="measure how a GPU computes a layer fastest, and keep it",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_geometry(parser, required=True)
    add = parser.add_argument
    add("--batch", type=int, required=True, metavar="N", help="samples")
    add("--dtype", default="float32", help=f"{', '.join(DTYPES)}; default float32")
    add("--device", default="gpu", help="kind of device, gpu or cpu; default gpu")
    add("--backend", default="torch", metavar="NAME", help="default torch")
    add("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from lcmulti import plugins
    from lcmulti.choosing.dispatch import choose
    from lcmulti.choosing.settings import current
    from lcmulti.cli import output
    from lcmulti.errors import UnsupportedError
    from lcmulti.geometry.arguments import choice, integer
    from lcmulti.plugins.contract import Problem

    backend = choice("backend", args.backend, plugins.registry().backends)
    dtype = choice("dtype", args.dtype, plugins.registry().backends[backend].dtypes)
    device = choice("device", args.device, ("cpu", "gpu"))
    batch, settings = integer("batch", args.batch, 1), current()
    plugins.load_backend(backend)
    problem = Problem(spec_from(args).computed(), batch, dtype, device, False, settings.resources)
    _, verdicts = choose(backend, problem, "auto", settings)
    reasons = {each.name: each.reason for each in verdicts}
    loaded: dict[str, Any] = {each: plugins.load_implementation(backend, each) for each in reasons}
    tunable = {name: each for name, each in loaded.items() if hasattr(each, "tune")}
    name = next((name for name in tunable if reasons[name] is None), None)
    if name is None:
        declined = "; ".join(f"{each}: {reasons[each]}" for each in tunable)
        raise UnsupportedError(
            f"nothing of backend {backend!r} can be tuned for this layer "
            f"({declined or 'it has no implementation with a choice of tiles'})"
        )
    measured: list[tuple[str, str, float | None]] = []

    def told(map_: str, candidate: str, seconds: float | None) -> None:
        measured.append((map_, candidate, seconds))
        shown = "failed" if seconds is None else f"{seconds * 1e6:,.1f} us"
        print(f"{map_:<12} {candidate:<44} {shown:>14}", file=sys.stderr, flush=True)

    chosen = tunable[name].tune(problem, told)
    if args.json:
        rows = [
            {"map": map_, "candidate": candidate, "seconds": seconds}
            for map_, candidate, seconds in measured
        ]
        output.print_json({"implementation": name, "measured": rows, "chosen": chosen})
        return 0
    print("\n".join(chosen))
    return 0
