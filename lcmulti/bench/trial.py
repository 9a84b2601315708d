"""Try a peer in another process, which can be ended: some build for hours or take all memory.

    python -m lcmulti.bench.trial < request

The request is a pickle that the parent process has made with this module.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

from lcmulti.bench.harness import harness
from lcmulti.bench.peers import PEERS, Peer
from lcmulti.bench.workloads import Arrays, Workload

__all__ = ["failure", "trial"]

OUT_OF_MEMORY = (
    "memoryerror", "out of memory", "can't allocate memory", "resource_exhausted", "oom when",
    "bad_alloc",
)  # fmt: skip
"""How NumPy, the frameworks and C++ report that memory is exhausted."""


def failure(said: str) -> str:
    """Describe an error, ``"Class: message"``."""
    if any(words in said.lower() for words in OUT_OF_MEMORY):
        return "not run: out of memory"
    said = " ".join(said.split())
    return "failed: " + (said if len(said) <= 200 else said[:199] + "…")


def trial(
    peer: Peer, workload: Workload, dtype: str, device: str, training: bool, limit: float
) -> str | None:
    """Try a peer in another process. Why it cannot run a workload, or None."""
    request = pickle.dumps((peer.backend, peer.name, workload, dtype, device, training))
    command = [sys.executable, "-m", "lcmulti.bench.trial"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            command, input=request, capture_output=True, timeout=limit, check=False,
            env=environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"over {limit:.0f} s"
    if done.returncode == 0:
        return None
    if done.returncode == -9:  # killed by the system, which ran out of memory
        return "not run: out of memory"
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return failure(said[-1] if said else f"ended with code {done.returncode}")


def main() -> int:
    """Build a peer and compute once."""
    backend, name, workload, dtype, device, training = pickle.load(sys.stdin.buffer)
    (peer,) = (each for each in PEERS if (each.backend, each.name) == (backend, name))
    harness(backend, device).step(peer.contender(Arrays(workload, dtype)), training)()
    return 0


if __name__ == "__main__":
    sys.exit(main())
