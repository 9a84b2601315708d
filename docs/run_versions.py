"""Run the quick tests and a quick certificate with what is installed; keep a row of versions.md.

    python docs/run_versions.py oldest torch

is what ``nox -s "versions(oldest)"`` does in an environment for each framework. Fails if a test or
the certificate does, and the row then says so.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "versions.md"
TESTS = {
    "numpy": ("core",),
    "torch": ("core", "torch"),
    "jax": ("core", "jax"),
    "tensorflow": ("core", "tensorflow", "keras"),
}
SHOWN = {
    "numpy": ("pluggy", "rich"),
    "torch": ("torch",),
    "jax": ("jax", "flax", "equinox"),
    "tensorflow": ("tensorflow", "keras"),
}


def tested(folders: tuple[str, ...], given: list[str]) -> tuple[bool, str]:
    """Run the quick tests of these folders; whether all passed, and how many."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        # Frameworks of other years warn of other things.
        command = [sys.executable, "-m", "pytest", "-W", "default", f"--junitxml={report}", *given]
        command += [str(ROOT / "tests" / name) for name in folders]
        code = subprocess.run(command, check=False, cwd=ROOT).returncode
        if not report.exists():
            return False, f"ended with {code}"
        (suite,) = ElementTree.parse(report).getroot()
    count = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
    bad = count["failures"] + count["errors"]
    passed = count["tests"] - bad - count["skipped"]
    shown = f"{passed} passed, {count['skipped']} skipped"
    return code == 0, f"**{bad} failed**, {shown}" if bad else shown


def certified(backend: str) -> tuple[bool, str]:
    """Run a quick certificate; whether nothing was wrong, and how long it took."""
    start = time.monotonic()
    command = [sys.executable, "-m", "lcmulti", "certify", backend, "--quick"]
    code = subprocess.run(command, check=False, cwd=tempfile.gettempdir()).returncode
    said = "nothing wrong" if code == 0 else "**failed**"
    return code == 0, f"{said} ({time.monotonic() - start:.0f} s)"


def keep(which: str, backend: str, row: str) -> None:
    """Put the row in the place of the last one of the same name."""
    mark = f"<!-- {which} {backend} -->"
    lines = PAGE.read_text("utf-8").splitlines()
    (place,) = (number for number, line in enumerate(lines) if line.endswith(mark))
    lines[place] = f"{row} {mark}"
    PAGE.write_text("\n".join(lines) + "\n", "utf-8")


def main(which: str, backend: str, *given: str) -> int:
    """Run both and keep what came of them; further words are pytest's."""
    all_passed, tests = tested(TESTS[backend], list(given))
    right, certificate = certified(backend)
    packages = metadata.packages_distributions()  # that of tensorflow may be tensorflow-cpu
    shown = ("numpy", *SHOWN[backend])
    versions = [f"{each} {metadata.version(packages[each][0])}" for each in shown]
    found = (", ".join(versions), tests, certificate)
    cells = [f"{which}, {date.today()}", platform.python_version(), *found]
    keep(which, backend, f"| {' | '.join(cells)} |")
    return 0 if all_passed and right else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
