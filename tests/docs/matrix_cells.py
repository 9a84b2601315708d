"""The cells of the support matrix: each tries one use (a column) with one layer or call (a row).

A cell is a function that asserts that the result is right. Where the framework itself cannot do
what the column says, the cell has a limit: it is expected to fail, and the limit quotes the
framework or names its issue. `write_support_matrix.py` runs all cells and writes
``docs/support_matrix.md``; `test_support_matrix.py` runs them as tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Matrix:
    """One framework's rows (makers of examples), columns (checks) and limits.

    ``about`` is text that the page has above this table. ``needs`` names the packages that a row,
    a column or a cell needs besides the framework.
    """

    framework: str
    title: str
    about: str = ""
    rows: dict[str, Callable[[], Any]] = field(default_factory=dict)
    columns: dict[str, Callable[[Any], None]] = field(default_factory=dict)
    slow: set[str] = field(default_factory=set)
    needs: dict[Any, tuple[str, ...]] = field(default_factory=dict)
    limits: dict[tuple[str, str], str] = field(default_factory=dict)

    def row(self, name, needs=None):
        def add(function):
            self.rows[name] = function
            if needs:
                self.needs[name] = (needs,)
            return function

        return add

    def column(self, name, slow=False, needs=None):
        def add(function):
            self.columns[name] = function
            if needs:
                self.needs[name] = (needs,)
            if slow:
                self.slow.add(name)
            return function

        return add

    def limit(self, row, column):
        """Return why the cell cannot work, or None. The row ``"*"`` stands for all rows."""
        return self.limits.get((row, column)) or self.limits.get(("*", column))

    def packages(self, row, column):
        """Return the packages a cell needs besides the framework, in the order they were named."""
        found = [self.needs.get(each, ()) for each in (row, column, (row, column))]
        return tuple(dict.fromkeys(sum(found, ())))

    def run(self, row, column):
        self.columns[column](self.rows[row]())
