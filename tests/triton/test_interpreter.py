"""Run the tests of ``interpreted/`` in a process where Triton interprets its kernels.

Triton reads the environment variable when it is imported, and other tests of this process need
its compiler.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton", reason="needs Triton: pip install 'lcmulti[triton]'")

FOLDER = Path(__file__).with_name("interpreted")


def run(*arguments):
    """Run pytest on ``interpreted/``, where all must pass; return how many tests there were."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-v", "-x", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-p", "no:randomly", *arguments],
        cwd=FOLDER, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed, done.stdout
    assert "skipped" not in done.stdout, done.stdout
    return int(passed[1])


def test_quick_ones():
    assert run() >= 10


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted(path.name for path in FOLDER.glob("test_*.py")))
def test_all(file):
    assert run(file, "--full") >= 1
