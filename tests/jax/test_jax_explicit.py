"""Data parallelism on a mesh of explicit axes, where types say how arrays are divided."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

jax = pytest.importorskip("jax")

pytestmark = [
    pytest.mark.jax,
    pytest.mark.skipif(
        not hasattr(jax.sharding, "use_abstract_mesh"), reason="this JAX has no such types"
    ),
]
PROGRAM = Path(__file__).parents[1] / "helpers" / "jax_explicit_program.py"
CASES = ["plain", "reflected", "strided", "groups", "shared", "composed", "blocked", "refused"]


def errors_of(*cases):
    command = [sys.executable, PROGRAM, *cases]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.stdout, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_batch_may_be_divided_and_only_gradients_of_weights_travel():
    """JAX 0.10 makes such meshes by default; types of kernels were those of the batch."""
    assert errors_of(*CASES) == dict.fromkeys(CASES)


@pytest.mark.parametrize("case, package", [("nnx", "flax"), ("equinox", "equinox")])
@pytest.mark.slow
def test_layers(case, package):
    pytest.importorskip(package)
    assert errors_of(case) == {case: None}
