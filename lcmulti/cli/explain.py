"""``lcmulti explain``: what would run for a geometry, and what it costs."""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
from typing import TYPE_CHECKING

from lcmulti.cli import ranks
from lcmulti.cli.arguments import Subparsers
from lcmulti.dtypes import DTYPES
from lcmulti.geometry.formats import DATA_FORMATS
from lcmulti.geometry.padding import PADDING_MODES, PADDINGS

if TYPE_CHECKING:
    from lcmulti.choosing.explain import Explanation
    from lcmulti.geometry.sharding_costs import Sharding
    from lcmulti.geometry.spec import LocalConvSpec
    from lcmulti.types import Padding

__all__ = ["add_geometry", "add_parser", "run", "spec_from"]

DESCRIPTION = """\
Tell which backend and implementation would compute a locally connected layer,
why, why not the others, and what it costs. Nothing is computed.

Sizes are written 63x63x16 or 63,63,16. One number stands for all axes.
"""

EXAMPLES = """\
examples:
  lcmulti explain --input 63x63x16 --kernel 9 --filters 16
  lcmulti explain --input 32x32x3 --kernel 3x5 --filters 64 --batch 32 \\
                  --strides 2 --padding same --backend torch
  lcmulti explain --input 160000x4 --kernel 16 --strides 16 --filters 4 \\
                  --padding 0:8 --dtype float16
  lcmulti explain --input 4096x4096x8 --kernel 5 --filters 8 --padding same \\
                  --batch 4 --ranks 1024

With --ranks the layer is divided by output positions, as lcmulti_torch.parallel
and lcmulti_jax.sharded do. Bytes and messages are those they send; times are
estimates from the speeds that are given.
"""


NAMES = 16
"""Width of the column of names."""

NARROWEST = 40
"""In narrower terminals, lines are broken by the terminal."""


def sizes(text: str) -> tuple[int, ...]:
    """``"63x63x16"`` as ``(63, 63, 16)``."""
    try:
        return tuple(map(int, re.split("[x,]", text)))
    except ValueError:
        expected = f"expected whole numbers, as in 63x63x16, got {text!r}"
        raise argparse.ArgumentTypeError(expected) from None


def sizes_or_one(text: str) -> int | tuple[int, ...]:
    """``"3"`` as ``3``, ``"3x5"`` as ``(3, 5)``."""
    parsed = sizes(text)
    return parsed[0] if len(parsed) == 1 else parsed


def padding(text: str) -> Padding:
    """A name, ``"1"``, ``"1x2"`` or ``"1:2,0:3"`` as `LocalConvSpec` takes it."""
    if ":" in text:
        return tuple(sizes(pair.replace(":", "x")) for pair in re.split("[x,]", text))
    return sizes_or_one(text) if text[:1].isdigit() else text


def add_geometry(parser: argparse._ActionsContainer, required: bool) -> None:
    """Add the arguments of a `LocalConvSpec`."""
    add = parser.add_argument
    add(
        "--input",
        type=sizes,
        required=required,
        metavar="SIZES",
        help="one sample: spatial axes, then channels (first with --data-format channels_first)",
    )
    add("--kernel", type=sizes_or_one, required=required, metavar="SIZES", help="window size")
    add("--filters", type=int, required=required, metavar="F", help="output channels")
    add("--strides", type=sizes_or_one, default=1, metavar="SIZES", help="default 1")
    add(
        "--padding",
        type=padding,
        default="valid",
        help=f"{', '.join(PADDINGS)}; 1; 1x2; or low:high pairs 1:2,0:3; default valid",
    )
    add(
        "--padding-mode",
        default="zeros",
        metavar="MODE",
        help=f"{', '.join(PADDING_MODES)}; default zeros",
    )
    add("--dilation", type=sizes_or_one, default=1, metavar="SIZES", help="default 1")
    add("--groups", type=int, default=1, metavar="G", help="default 1")
    add(
        "--shared-axes",
        type=sizes,
        default=(),
        metavar="AXES",
        help="output axes along which one kernel is shared, 0,1",
    )
    add("--data-format", metavar="FORMAT", help=f"{', '.join(DATA_FORMATS)}; default: configured")


def spec_from(args: argparse.Namespace) -> LocalConvSpec:
    """The `LocalConvSpec` of parsed arguments."""
    import lcmulti

    return lcmulti.LocalConvSpec(
        args.input,
        args.filters,
        args.kernel,
        strides=args.strides,
        padding=args.padding,
        padding_mode=args.padding_mode,
        dilation=args.dilation,
        groups=args.groups,
        data_format=args.data_format,
        shared_axes=args.shared_axes,
    )


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "explain",
        help="tell what would compute a layer, why, and what it costs",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_geometry(parser, required=True)
    add = parser.add_argument
    add("--batch", type=int, metavar="N", help="samples; left out: not known in advance")
    add("--dtype", default="float32", help=f"{', '.join(DTYPES)}; default float32")
    add("--device", default="cpu", help="kind of device, cpu or gpu; default cpu")
    add("--backend", metavar="NAME", help="default: configured; see `lcmulti backends`")
    add("--implementation", default="auto", metavar="NAME", help="ask for this one; default auto")
    ranks.add_arguments(add, sizes_or_one)
    add("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    import lcmulti

    spec = spec_from(args)
    found = lcmulti.explain(
        spec,
        batch=args.batch,
        dtype=args.dtype,
        device=args.device,
        backend=args.backend,
        implementation=args.implementation,
    )
    weights = spec.num_parameters * DTYPES[args.dtype.lower()].itemsize
    samples = 1 if args.batch is None else args.batch
    sharding = ranks.sharding_of(spec, args)
    if args.json:
        _print_json(found, weights, samples, args, sharding)
        return 0
    lines = [
        str(found),
        f"parameters      {spec.num_parameters:,}",
        f"weights         {weights:,} bytes",
        f"flops           {spec.flops(samples):,} forward, for {samples:,} sample(s)",
    ]
    if sharding is not None:
        lines.append(ranks.text(args, sharding, args.dtype.lower(), samples))
    print(_folded("\n".join(lines)))
    return 0


def _folded(text: str) -> str:
    """Lines of a name and a text, folded to the terminal, with further lines below the text."""
    width = max(shutil.get_terminal_size().columns, NARROWEST)
    return "\n".join(
        textwrap.fill(line, width, subsequent_indent=" " * NAMES, break_on_hyphens=False)
        for line in text.splitlines()
    )


def _print_json(
    found: Explanation,
    weights: int,
    samples: int,
    args: argparse.Namespace,
    sharding: Sharding | None,
) -> None:
    from lcmulti.cli import output

    spec = found.spec
    over = None if sharding is None else ranks.as_json(args, sharding, args.dtype.lower(), samples)
    output.print_json(
        {
            "backend": found.backend,
            "backend_reason": found.backend_reason,
            "implementation": found.implementation,
            "implementation_reason": found.implementation_reason,
            "workspace": found.workspace,
            "details": found.details,
            "verdicts": [verdict._asdict() for verdict in found.verdicts],
            "output_shape": spec.output_shape,
            "kernel_shape": spec.kernel_shape,
            "bias_shape": spec.bias_shape,
            "parameters": spec.num_parameters,
            "weight_bytes": weights,
            "samples": samples,
            "flops": spec.flops(samples),
        }
        | ({} if over is None else {"over_ranks": over})
    )
