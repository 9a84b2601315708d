"""``lcmulti backends``: list what is installed, what it can do, and what is broken."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from lcmulti import plugins
from lcmulti.cli.arguments import Subparsers
from lcmulti.errors import MissingBackendError

if TYPE_CHECKING:
    from lcmulti.plugins.contract import BackendEntry, ImplementationEntry

__all__ = ["add_parser", "run"]

DESCRIPTION = """\
List every backend a plugin registers: whether its framework is installed, the
version and devices found, the dtypes and implementations it has, and which
plugin it came from. Implementations are listed as implementation="auto" tries
them, first the one it prefers. A plugin that is broken is listed with its
error, and a framework that is absent with the command that installs it.
"""

EXAMPLES = """\
examples:
  lcmulti backends
  lcmulti backends --json | python -m json.tool
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "backends",
        help="list backends, their devices, dtypes and implementations",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from lcmulti.cli import output

    found = plugins.registry()
    # PyTorch before TensorFlow: both load an OpenMP runtime, and only this order is safe.
    ordered = sorted(found.backends.values(), key=lambda entry: entry.name != "torch")
    described = {entry.name: describe(entry) for entry in ordered}
    backends = [described[name] for name in sorted(described)]
    broken = [
        {"plugin": str(origin), "error": f"{type(error).__name__}: {error}"}
        for origin, error in found.errors.items()
    ]
    if args.json:
        output.print_json({"backends": backends, "broken_plugins": broken})
    else:
        _print(backends, broken)
    return 0


def describe(entry: BackendEntry) -> dict[str, Any]:
    """Describe a backend; its framework is imported if it is installed."""
    installed = plugins.is_installed(entry)
    devices, error = [], None
    if installed:
        try:
            devices = plugins.load_backend(entry.name).devices()
        except MissingBackendError as reason:
            error = str(reason)
    return {
        "name": entry.name,
        "installed": installed,
        "version": plugins.framework_version(entry) if installed else None,
        "devices": devices,
        "dtypes": entry.dtypes,
        "implementations": [
            {
                "name": each.name,
                "summary": each.summary,
                "plugin": _origin(entry.name, each.name),
                "unavailable": None,
                "hardware": None,
            }
            | (_machine(each) if installed and not error else {})
            for each in plugins.registry().implementations_of(entry.name)
        ],
        "plugin": _origin(entry.name),
        "error": error,
        "install": entry.install,
    }


def _machine(entry: ImplementationEntry) -> dict[str, str | None]:
    """Why an implementation cannot serve on this machine, or the hardware it uses."""
    try:
        implementation = plugins.load_implementation(entry.backend, entry.name)
        names = ("unavailable", "hardware")
        asked = {name: getattr(implementation, name, None) for name in names}
        return {name: None if each is None else each() for name, each in asked.items()}
    except Exception as error:  # third-party code may fail; the rest must still be listed
        return {"unavailable": str(error)}


def _origin(*key: str) -> str:
    return str(plugins.registry().origins[key[0] if len(key) == 1 else key])


def _print(backends: list[dict[str, Any]], broken: list[dict[str, str]]) -> None:
    from rich.padding import Padding

    from lcmulti.cli import output

    console = output.console()
    for each in backends:
        state = each["version"] or "unknown version"
        if not each["installed"]:
            state = f"not installed; install it with: {each['install']}"
        console.print(f"{each['name']} {state}", soft_wrap=True)  # a command must stay on one line
        if each["error"]:
            console.print(f"  {each['error']}", soft_wrap=True)
        facts = output.grid()
        facts.add_row("devices", ", ".join(each["devices"]) or "-")
        facts.add_row("dtypes", ", ".join(each["dtypes"]))
        facts.add_row("plugin", each["plugin"])
        ways = output.grid()
        for way in each["implementations"]:
            elsewhere = f" [{way['plugin']}]" if way["plugin"] != each["plugin"] else ""
            ways.add_row(way["name"], way["summary"] + elsewhere)
            if way["unavailable"]:
                ways.add_row("", f"not here: {way['unavailable']}")
            elif way["hardware"]:
                ways.add_row("", f"here with {way['hardware']}")
        facts.add_row("implementations", ways if each["implementations"] else "-")
        console.print(Padding(facts, (0, 0, 1, 2), expand=False))
    for each in broken:
        console.print(f"broken plugin {each['plugin']}: {each['error']}", soft_wrap=True)
