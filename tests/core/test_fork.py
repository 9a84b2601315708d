"""PyTorch does not declare ``"fork"``: its threads do not survive a fork, but a single one does.

NumPy's backend declares it, and `lcmulti certify numpy` checks it.
"""

import os
import subprocess
import sys

import pytest

FORK = """
import multiprocessing, sys
import torch, lcmulti

what, threads = sys.argv[1], int(sys.argv[2])
a, x, kernel = torch.randn(600, 600), torch.randn(16, 602, 8), torch.randn(600, 3, 8, 8)

def computed():
    return a @ a if what == "product" else lcmulti.local_conv(x, kernel)

expected = computed()

def child():
    torch.set_num_threads(threads)
    queue.put(bool(torch.equal(computed(), expected)))

context = multiprocessing.get_context("fork")
queue = context.SimpleQueue()
process = context.Process(target=child)
process.start()
process.join(float(sys.argv[3]))
print("never returns" if process.is_alive() else f"{process.exitcode} {queue.get()}")
process.kill()
"""


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.skipif(sys.platform != "linux", reason="systems differ in which threads survive")
@pytest.mark.parametrize(
    "what, threads, ends",
    [
        # If this fails, PyTorch's backend can declare "fork".
        ("product", 2, "never returns"),
        # The workers of a DataLoader do this first.
        ("layer", 1, "0 True"),
    ],
)
def test_child_forked_after_use(what, threads, ends):
    pytest.importorskip("torch")
    command = [sys.executable, "-c", FORK, what, str(threads), "10" if threads > 1 else "100"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )  # fmt: skip
    assert done.stdout.strip() == ends
