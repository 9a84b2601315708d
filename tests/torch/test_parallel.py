"""The checks of `parallel_*.py` over several processes. One run of `ranks.py` does all selected."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available() or not hasattr(os, "fork"):
    pytest.skip("needs torch.distributed and processes that fork", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).parent))
import parallel_cases  # noqa: E402
import parallel_drawn  # noqa: E402
import parallel_files  # noqa: E402
import parallel_layers  # noqa: E402
import parallel_memory  # noqa: E402
import parallel_overlap  # noqa: E402
import parallel_refusals  # noqa: E402
import parallel_training  # noqa: E402
from releases import is_older  # noqa: E402

pytestmark = pytest.mark.torch
HERE, RANKS = Path(__file__).parent, 4
GROUPS = {
    RANKS: (parallel_cases, parallel_layers, parallel_refusals, parallel_training, parallel_memory,
            parallel_overlap, parallel_files),
    3: (parallel_drawn, parallel_files),
    2: (parallel_cases, parallel_files),
    1: (parallel_files,),
}  # fmt: skip
FAST = {
    "geometry: uneven first", "geometry: most ranks empty", "geometry: spanning",
    "geometry: dilation and strides", "geometry: circular far", "geometry: both circular",
    "geometry: batch and rows", "geometry: bfloat16", "layer: transposed 2d, empty",
    "integers: transposed 2d", "integers: low rank", "twice: 2d", "drawn alike", "mixed tensors",
    "wrong arguments", "unbatched and wrong input", "trained: plain", "on paper, 4 ranks",
}  # fmt: skip
CHECKS = [name for ranks in GROUPS for module in GROUPS[ranks] for name in module.checks(ranks)]


def environment():
    path = os.pathsep.join([str(HERE), str(HERE.parent / "helpers")])
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}


@pytest.fixture(scope="session")
def outcomes(request, tmp_path_factory):
    """Run all selected checks; return the error of each, or None."""
    wanted = [
        item.callspec.params["check"]
        for item in request.session.items
        if getattr(item, "originalname", "") == "test_over_ranks"
    ]
    groups = [f"{n}:{','.join(each.__name__ for each in GROUPS[n])}" for n in GROUPS]
    if any(name.startswith("files: read") for name in wanted):
        wanted += [name for name in CHECKS if name.startswith("files: saved")]
    folder = {"TEST_FOLDER": str(tmp_path_factory.mktemp("files"))}
    run = subprocess.run(
        [sys.executable, "ranks.py", *groups], cwd=HERE, env=environment() | folder, check=False,
        input=json.dumps(wanted), capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert not run.returncode, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "check",
    [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in CHECKS],
)
def test_over_ranks(outcomes, check):
    if outcomes[check] and check.startswith("trained") and is_older("torch", 2, 13):
        assert "need PyTorch 2.13" in outcomes[check]
        pytest.skip("one of its layers is transposed")
    if outcomes[check]:
        pytest.fail(outcomes[check], pytrace=False)


def test_the_fast_ones_are_checks():
    assert set(CHECKS) >= FAST


def test_there_are_geometries_enough():
    assert len(parallel_cases.GEOMETRIES) >= 40


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_others(tmp_path):
    """One rank is killed. The other, which waits for its rows, must end with an error."""
    script = """
import datetime, os, signal, sys, torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
import lcmulti_torch
from lcmulti_torch.parallel import shard
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2,
                        timeout=datetime.timedelta(minutes=30))
layer = shard(lcmulti_torch.LocallyConnected1d(2, 3, 5, 40), init_device_mesh("cpu", (2,)))
from torch.distributed.tensor import Shard, distribute_tensor
x = distribute_tensor(torch.ones(2, 2, 40), layer.weight.device_mesh, [Shard(2)])
layer(x)
if rank:
    os.kill(os.getpid(), signal.SIGKILL)
for step in range(1000):
    layer(x)
"""
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(rank), str(tmp_path)], env=environment(),
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        (_, error), _ = [each.communicate(timeout=150) for each in ranks]
    finally:
        for each in ranks:
            each.kill()
    assert [each.returncode for each in ranks] == [1, -signal.SIGKILL]
    assert "RuntimeError" in error
