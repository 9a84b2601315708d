"""`asv_benches/on_gpu.py` runs to its end without a GPU, and with lcmulti not installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton", reason="needs Triton: pip install 'lcmulti[triton]'")

import torch

SCRIPT = Path(__file__).parents[2] / "asv_benches" / "on_gpu.py"
SECTIONS = {"machine", "correctness", "small", "graphs", "memory", "maps", "training"}
OURS = ("lcmulti", "_lcmulti", "__editable__", "pluggy", "platformdirs", "rich")


@pytest.fixture
def bare(tmp_path):
    """Return the environment of a machine with PyTorch and Triton, but without lcmulti."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    for each in Path(torch.__file__).parents[1].iterdir():
        if not each.name.startswith(OURS) and each.suffix != ".pth":
            (folder / each.name).symlink_to(each)
    return os.environ | {"PYTHONPATH": str(folder), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_the_whole_script(bare, tmp_path):
    out = tmp_path / "found.json"
    command = [sys.executable, "-S", str(SCRIPT), "--out", str(out)]
    if importlib.util.find_spec("matplotlib"):
        command += ["--plot", str(tmp_path / "found.png")]
    done = subprocess.run(
        command, env=bare, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(out.read_text())
    assert set(found) == SECTIONS | {"summary"}  # nothing was cut short
    assert all(found.values())
    assert {row["precision"] for row in found["correctness"]} == {"ieee", "tf32x3"}
    assert 0 < found["summary"]["largest share of the error bound"] <= 1
    assert found["graphs"][0]["same bits"]
    assert None not in found["training"][0].values()
