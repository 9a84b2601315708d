"""Compare what type checkers report for a user's file with what its lines say they should.

A line ends in ``# R: type`` if it reveals a type, in ``# R by pyright: type`` if this checker alone
reads the sources that say so, and in ``# E`` if it must be refused.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKERS = ("pyright", "mypy")


def places(packages):
    """Return the paths of the packages that are not in ``site-packages``."""
    found = {Path(importlib.util.find_spec(name).origin).parents[1] for name in packages}
    return [str(each) for each in found if each.name != "site-packages"]


def by_mypy(path, packages, folder):
    config = folder / "mypy.ini"
    config.write_text("[mypy]\nstrict = True\n", "utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", config, "--cache-dir", folder / "cache",
         "--no-error-summary", path],
        check=False, capture_output=True, text=True, timeout=600,
        env=os.environ | {"MYPYPATH": os.pathsep.join(places(packages))},
    )  # fmt: skip
    assert run.returncode in (0, 1), run.stdout + run.stderr
    pattern = re.compile(rf"{re.escape(path.name)}:(\d+): (error|note): (.*)")
    return [(int(line), kind, text) for line, kind, text in pattern.findall(run.stdout)]


def by_pyright(path, packages, folder):
    settings = {
        "typeCheckingMode": "strict",
        "extraPaths": places(packages),
        "include": [str(path)],
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings), "utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "pyright", "-p", folder, "--pythonpath", sys.executable,
         "--outputjson"],
        check=False, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    found = json.loads(run.stdout)["generalDiagnostics"]
    kinds = {"error": "error", "warning": "error", "information": "note"}
    return [
        (each["range"]["start"]["line"] + 1, kinds[each["severity"]], each["message"])
        for each in found
    ]


def revealed(text):
    """Return the type in a checker's note, without modules, which checkers write differently."""
    quoted = re.findall(r'"([^"]*)"', text)
    if not quoted:
        return ""
    found = re.sub(r"\w+\.(?=\w)", "", quoted[-1])
    made = re.fullmatch(r"def \(.*\) -> (\w+)", found)  # mypy's way to write a class
    return f"type[{made[1]}]" if made else found


def verify(checker, path, packages, folder):
    """Compare what a checker finds with what the lines of the file say."""
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"needs {checker}")
    run = {"mypy": by_mypy, "pyright": by_pyright}[checker]
    errors, notes = {}, {}
    lines = path.read_text("utf-8").splitlines()
    user = folder / path.name  # a checker finds its settings beside the file it checks
    user.write_text(path.read_text("utf-8"), "utf-8")
    for line, kind, text in run(user, packages, folder):
        (errors if kind == "error" else notes).setdefault(line, []).append(text)
    refused = {n for n, line in enumerate(lines, 1) if line.endswith("# E")}
    assert set(errors) == refused, errors
    for number, line in enumerate(lines, 1):
        _, mark, said = line.partition("  # R")
        by, _, wanted = said.partition(": ")
        if mark and by in ("", f" by {checker}"):
            assert wanted in map(revealed, notes.get(number, [])), (line, notes.get(number))
