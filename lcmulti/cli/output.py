"""What the subcommands print with."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["console", "grid", "print_json", "table"]


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        raise  # noqa: PLE0704 - called while BrokenPipeError is handled; `main` answers it


def console(stderr: bool = False) -> Console:
    """A console that prints text as it stands: brackets in a message are no markup."""
    return _Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def table(title: str, *columns: str) -> Table:
    """An empty table; long cells are folded, so that nothing is cut off at 80 columns."""
    made = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def grid() -> Table:
    """An empty list of names and texts, without lines."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    return made


def print_json(value: Any) -> None:
    """Print *value* as JSON; what JSON does not know is written as text."""
    print(json.dumps(value, indent=2, default=str))
