"""Every cell of the support matrix runs, and the published tables have the same cells."""

from __future__ import annotations

import importlib
import importlib.util

import pytest
from write_support_matrix import IN_SHORT, MODULES, PAGE, README, in_short, verdicts_on

INSTALLED = [name for name in MODULES if importlib.util.find_spec(name)]
MATRICES = [importlib.import_module(MODULES[name]).MATRIX for name in INSTALLED]


def cells():
    for matrix in MATRICES:
        for row in matrix.rows:
            for column in matrix.columns:
                # One worker runs a row, so what its cells share is made once.
                group = pytest.mark.xdist_group(f"matrix, {matrix.framework} {row}")
                marks = [getattr(pytest.mark, matrix.framework), group]
                for package in matrix.packages(row, column):
                    missing = importlib.util.find_spec(package) is None
                    marks.append(pytest.mark.skipif(missing, reason=f"needs {package}"))
                if column in matrix.slow or row != next(iter(matrix.rows)):  # first rows are fast
                    marks.append(pytest.mark.slow)
                limit = matrix.limit(row, column)
                if limit:
                    marks.append(pytest.mark.xfail(strict=True, reason=limit))
                name = f"{matrix.framework}-{row.strip('`')}-{column}"
                yield pytest.param(matrix, row, column, id=name, marks=marks)


@pytest.mark.parametrize(("matrix", "row", "column"), list(cells()))
def test_cell(matrix, row, column):
    matrix.run(row, column)


@pytest.mark.parametrize("matrix", MATRICES, ids=lambda matrix: matrix.framework)
def test_the_published_table_has_these_cells(matrix):
    expected = {
        (row, column): "Y" if matrix.limit(row, column) is None else "-"
        for row in matrix.rows
        for column in matrix.columns
    }
    assert verdicts_on(PAGE.read_text("utf-8"), matrix.title) == expected
    assert in_short(matrix) in README.read_text("utf-8").split(IN_SHORT)[1].splitlines()
