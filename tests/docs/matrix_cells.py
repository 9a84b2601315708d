"""The cells of the support matrix: what users do, with what, and what came of it.

A cell is a function that does what the column says to the thing of the row and asserts that the
result is right. Where a framework itself cannot, the cell has a limit, is expected to fail, and
the limit names the framework's own words or issue. `write_support_matrix.py` runs all of them
and writes ``docs/support_matrix.md``; `test_support_matrix.py` runs them as tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Matrix:
    """One framework's rows (makers of examples), columns (checks) and limits.

    ``about`` is what the page says of this table alone; ``needs`` names the packages, beside the
    framework, that a row, a column or a cell needs.
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
        """Why a cell cannot be, or None; a row ``"*"`` stands for all."""
        return self.limits.get((row, column)) or self.limits.get(("*", column))

    def packages(self, row, column):
        """What a cell needs beside the framework, in the order it is asked for."""
        found = [self.needs.get(each, ()) for each in (row, column, (row, column))]
        return tuple(dict.fromkeys(sum(found, ())))

    def run(self, row, column):
        self.columns[column](self.rows[row]())
