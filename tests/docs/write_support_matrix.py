"""Run every cell of the support matrix; write docs/support_matrix.md and the summary in README.

    python tests/docs/write_support_matrix.py

    python tests/docs/write_support_matrix.py torch  # only this table; or jax, tensorflow, keras

This takes some minutes. A cell that fails without a limit, or works in spite of one, is an error.
The table of its framework is then left as it was.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PAGE = Path(__file__).parents[2] / "docs" / "support_matrix.md"
README = Path(__file__).parents[2] / "README.md"
IN_SHORT = (
    "| | works in every column of its table | not in every column, by a limit of the framework |\n"
)
TITLES = ("PyTorch", "JAX", "TensorFlow", "Keras 3")
MODULES = {
    "torch": "matrix_torch", "jax": "matrix_jax", "tensorflow": "matrix_tensorflow",
    "keras": "matrix_keras",
}  # fmt: skip

HEAD = """# What works with what

Each cell is a test that does what its row says to the thing in its column and compares the
result, and in training the gradients, with a plain call. This page is written by the tests:

    python tests/docs/write_support_matrix.py

**Y** works. A number is a limit of the framework itself, explained below its table; its test is
expected to fail, strictly, so that the day the limit is gone is noticed.
"""


def section(matrix, versions):
    """Write the table of one framework, with a line for each use, and its limits."""
    notes = []
    head = ["", *matrix.rows]
    lines = [f"## {matrix.title}", "", f"{matrix.about}Run with {versions}.", ""]
    lines += [f"| {' | '.join(head)} |", "|---" + "|:-:" * len(matrix.rows) + "|"]
    for column in matrix.columns:
        shown = []
        for row in matrix.rows:
            limit = matrix.limit(row, column)
            if limit is None:
                shown.append("Y")
                continue
            if limit not in notes:
                notes.append(limit)
            shown.append(f"{notes.index(limit) + 1}")
        lines.append(f"| {column} | {' | '.join(shown)} |")
    lines += ["", *(f"{n}. {note}" for n, note in enumerate(notes, 1))]
    return "\n".join(lines).rstrip() + "\n"


def in_short(matrix):
    """Write a row of README's table: the uses that work with every layer, and the others."""
    rest = [c for c in matrix.columns if any(matrix.limit(row, c) for row in matrix.rows)]
    works = [column for column in matrix.columns if column not in rest]
    return f"| {matrix.title} | {'; '.join(works)} | {'; '.join(rest)} |"


def with_rows(readme, short):
    """Return the text of README with the rows of its table replaced."""
    head, rest = readme.split(IN_SHORT)
    table, after = rest.split("\n\n", 1)
    for title, row in short.items():
        table = re.sub(rf"^\| {title} \|.*$", lambda _, row=row: row, table, flags=re.MULTILINE)
    return f"{head}{IN_SHORT}{table}\n\n{after}"


def verdicts_on(page, title):
    """Read ``{(row, column): "Y" or "-"}`` from one framework's table on the page."""
    body = page.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    table = [line for line in body.splitlines() if line.startswith("|")]
    rows = [each.strip() for each in table[0].strip("|").split("|")][1:]
    found = {}
    for line in table[2:]:
        column, *shown = (each.strip() for each in line.strip("|").split("|"))
        for row, each in zip(rows, shown, strict=True):
            found[row, column] = "Y" if each == "Y" else "-"
    return found


def versions_of(framework):
    from importlib import metadata

    names = {
        "torch": ("torch", "onnxruntime"),
        "jax": ("jax", "flax", "equinox"),
        "tensorflow": ("tensorflow",),
        "keras": (
            "keras",
            "tensorflow",
            "torch",
            "jax",
            "numpy",
            "onnxruntime",
            "tf2onnx",
            "jax2onnx",
            "litert_torch",
        ),
    }
    found = []
    for name in names[framework]:
        for distribution in (name, f"{name}-cpu"):
            try:
                found.append(f"{name} {metadata.version(distribution).split('+')[0]}")
                break
            except metadata.PackageNotFoundError:
                continue
    return ", ".join(found)


def run(matrix):
    """Run all cells of a framework; return how many failed or worked against their limits."""
    wrong = 0
    for column in matrix.columns:
        for row in matrix.rows:
            error = None
            try:
                matrix.run(row, column)
            except Exception:
                error = traceback.format_exc()
            ok = (error is None) == (matrix.limit(row, column) is None)
            print(f"{'ok' if ok else 'WRONG':6}{matrix.framework}: {column}: {row}", flush=True)
            if not ok:
                wrong += 1
                print(error or "works, though a limit is noted", flush=True)
    return wrong


def main(argv):
    """Run the frameworks named in *argv* (by default all) and write their parts of the page."""
    written, short, wrong = {}, {}, 0
    for name in argv or MODULES:
        matrix = importlib.import_module(MODULES[name]).MATRIX
        failed = run(matrix)
        wrong += failed
        if not failed:
            written[matrix.title] = section(matrix, versions_of(name))
            short[matrix.title] = in_short(matrix)
    page = PAGE.read_text("utf-8") if PAGE.exists() else ""
    before = {part.split("\n", 1)[0]: f"## {part}" for part in page.split("\n## ")[1:]}
    sections = sorted((before | written).items(), key=lambda item: TITLES.index(item[0]))
    PAGE.write_text("\n".join([HEAD, *(f"{text.rstrip()}\n" for _, text in sections)]), "utf-8")
    README.write_text(with_rows(README.read_text("utf-8"), short), "utf-8")
    if wrong:
        print(f"{wrong} cells are not as noted; their tables were not written", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
