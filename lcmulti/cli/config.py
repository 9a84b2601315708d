"""``lcmulti config``: show each setting and where its value came from, or change it."""

from __future__ import annotations

import argparse

from lcmulti.choosing import settings, user_settings
from lcmulti.cli.arguments import Subparsers
from lcmulti.errors import printable

__all__ = ["add_parser", "run"]

DESCRIPTION = """\
Print every setting, its value and the place it came from; or change one in
your user file. Stronger places win over weaker ones, in this order:

  1. the call itself, local_conv(..., backend="jax")
  2. with lcmulti.config(backend="jax"): ...
  3. environment variables, LCMULTI_BACKEND=jax
  4. lcmulti.toml, or [tool.lcmulti] in pyproject.toml: the nearest of them
     in the current folder or one above it
  5. your user file, which `lcmulti config set` writes
  6. keras.json (for data_format alone)
  7. the default
"""

EXAMPLES = """\
settings:
  backend         of calls whose arrays are all NumPy arrays: numpy, torch, ...
  implementation  auto, or the one to prefer where it can serve
  data_format     of calls that give none: channels_last or channels_first
  max_workspace   memory beyond inputs, outputs, weights and gradients: 256MiB
  threads         of the native kernels: auto, or a number
  precision       of float32 in kernels for GPUs: ieee, or tf32x3
  tiles           of kernels for GPUs: tuned, pinned, or measured at first call

examples:
  lcmulti config
  lcmulti config get data_format
  lcmulti config set max_workspace 64MiB
  lcmulti config unset max_workspace
  cat "$(lcmulti config path)"
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "config",
        help="print or change settings and see where they come from",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=run)
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    get = actions.add_parser("get", help="print one setting's value")
    get.add_argument("key", metavar="KEY", help="name of the setting")
    get.set_defaults(run=run_get)
    change = actions.add_parser("set", help="write a setting to your user file")
    change.add_argument("key", metavar="KEY", help="name of the setting")
    change.add_argument("value", metavar="VALUE", help="its new value; it is checked first")
    change.set_defaults(run=run_set)
    remove = actions.add_parser("unset", help="take a setting out of your user file")
    remove.add_argument("key", metavar="KEY", help="name of the setting")
    remove.set_defaults(run=run_unset)
    path = actions.add_parser("path", help="print the path of your user file")
    path.set_defaults(run=run_path)


def run(args: argparse.Namespace) -> int:
    """Print all settings."""
    from lcmulti.cli import output

    found = settings.sources()
    if args.json:
        output.print_json({name: source._asdict() for name, source in found.items()})
        return 0
    table = output.table("", "setting", "value", "from")
    for name, source in found.items():
        table.add_row(name, _shown(source.value), source.place)
    console = output.console()
    console.print(table)
    for place, reason in settings.closed_places().items():
        console.print(f"note: not looked into: {printable(place)} ({reason})")
    return 0


def run_get(args: argparse.Namespace) -> int:
    """Print one setting."""
    from lcmulti.cli import output

    settings.require_known(args.key, "lcmulti config get")
    value = settings.sources()[args.key].value
    if args.json:
        output.print_json(value)
    else:
        print(_shown(value))
    return 0


def run_set(args: argparse.Namespace) -> int:
    """Write one setting to the user's file."""
    path = user_settings.write_user_setting(args.key, args.value)
    print(f"{args.key} = {args.value} written to {path}")
    source = settings.sources()[args.key]
    if source.place != str(path):
        print(f"note: {source.place} is stronger and sets it to {_shown(source.value)} here")
    return 0


def run_unset(args: argparse.Namespace) -> int:
    """Remove one setting from the user's file."""
    was_there = user_settings.remove_user_setting(args.key)
    path = printable(settings.user_file())
    print(f"{args.key} taken out of {path}" if was_there else f"{args.key} is not in {path}")
    if was_there and args.key in settings.DEFAULTS._fields:
        source = settings.sources()[args.key]
        print(f"it is now {_shown(source.value)} ({source.place})")
    return 0


def run_path(args: argparse.Namespace) -> int:
    """Print the path of the user's file, whether it exists or not."""
    print(settings.user_file())
    return 0


def _shown(value: object) -> str:
    return "auto" if value is None else str(value)
