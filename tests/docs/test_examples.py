"""Every example runs in a new process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

EXAMPLES = {
    "digits_torch.py": ("torch",),
    "sharded_jax.py --positions 20001 --steps 2": ("jax",),
    "digits_nnx.py": ("jax", "flax", "optax"),
    "digits_equinox.py": ("jax", "equinox"),
    "digits_tensorflow.py": ("tensorflow",),
    "digits_keras.py": ("keras", "tensorflow"),
    "deepface.py torch": ("torch",),
    "deepface.py nnx": ("jax", "flax"),
    "deepface.py equinox": ("jax", "equinox"),
    "deepface.py tensorflow": ("tensorflow",),
    "digits_compare.py": ("torch",),
    "untie.py": ("torch",),
    "sharing.py --seeds 1": ("torch",),
    "topography.py": ("torch", "matplotlib"),
    "faces.py": ("torch",),
    "sharded_torch.py": ("torch",),
    "snp.py": ("torch",),
    "field.py": ("jax",),
    "revive.py": ("tf_keras", "keras", "tensorflow"),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", EXAMPLES)
def test_example_runs(command):
    for package in EXAMPLES[command]:
        pytest.importorskip(package)
    script, *arguments = command.split()
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    run = subprocess.run(
        [sys.executable, ROOT / "examples" / script, *arguments],
        check=False, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout


def test_every_example_is_run():
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == {
        command.split()[0] for command in EXAMPLES
    }
