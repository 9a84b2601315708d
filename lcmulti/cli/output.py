"""How the subcommands print."""

from __future__ import annotations

import json
from typing import NoReturn

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["console", "grid", "print_json", "table"]


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        raise  # noqa: PLE0704 - called while BrokenPipeError is handled, which `main` catches


def console(stderr: bool = False) -> Console:
    """A console that prints text unchanged: brackets are not markup."""
    return _Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def table(title: str, *columns: str) -> Table:
    """An empty table. Long cells are folded, so that nothing is cut off in a narrow terminal."""
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


def print_json(value: object) -> None:
    """Print *value* as JSON; values that JSON does not have are printed as text."""
    print(json.dumps(value, indent=2, default=str))
