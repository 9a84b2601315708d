"""Every Python block of the pages in docs/ runs, those of a page one after the other.

A line ``print(...)   # text`` promises what it prints.
"""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEEDS = {
    "pytorch.md": ("torch", "safetensors"),
    "jax.md": ("jax", "flax", "equinox", "safetensors"),
    "tensorflow.md": ("tensorflow",),
}
EXAMPLES = {
    "digits_torch.py": ("torch",),
    "digits_nnx.py": ("jax", "flax", "optax"),
    "deepface.py torch": ("torch",),
    "deepface.py nnx": ("jax", "flax"),
    "deepface.py equinox": ("jax", "equinox"),
    "deepface.py tensorflow": ("tensorflow",),
}


def blocks_of(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text("utf-8"), re.DOTALL)


def promised(block):
    """What the comments after ``print`` lines say, in order."""
    same_line = re.findall(r"^\s*print\(.*\)\s*# (.*)$|^# (.*)$", block, re.MULTILINE)
    return [one or other for one, other in same_line]


@pytest.mark.slow
@pytest.mark.parametrize("page", NEEDS)
def test_page_runs_and_prints_what_it_says(page):
    for package in NEEDS[page]:
        pytest.importorskip(package)
    blocks = blocks_of(page)
    assert len(blocks) >= 4
    names = {}
    for block in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block, page, "exec"), names)
        lines = printed.getvalue().splitlines()
        assert len(promised(block)) == len(lines)
        assert lines == promised(block)


@pytest.mark.slow
@pytest.mark.parametrize("command", EXAMPLES)
def test_example_runs(command):
    for package in EXAMPLES[command]:
        pytest.importorskip(package)
    script, *arguments = command.split()
    run = subprocess.run(
        [sys.executable, ROOT / "examples" / script, *arguments],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout
