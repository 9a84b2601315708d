"""What PyTorch's idle threads cost a native call that follows one of PyTorch's own operations.

    python asv_benches/idle_threads.py [--keep]

After a parallel operation the threads of PyTorch's OpenMP wait in a loop, on the core that the
kernels' second thread wants, unless OMP_WAIT_POLICY=passive sends them to sleep. Least times of
many calls of one kernel, alone and each after an addition, under both policies.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import needs_native  # noqa: F401
from kept import keep

import lcmulti
from lcmulti import plugins
from lcmulti.backend import Resources

CALLS = 300


def measured(policy: str) -> None:
    """Print and keep the times in this process."""
    import torch

    spec = lcmulti.LocalConvSpec((25, 25, 16), 16, 5, data_format="channels_last").computed()
    door = plugins.load_implementation("torch", "native")
    x, kernel = torch.rand(32, *spec.input_shape), torch.rand(*spec.kernel_shape)
    terms = torch.rand(1 << 22)
    total = torch.empty_like(terms)

    def call() -> float:
        start = time.perf_counter()
        door.forward(x, kernel, spec, Resources(2**28))
        return time.perf_counter() - start

    call()
    alone = min(call() for _ in range(CALLS))
    after = []
    for _ in range(CALLS):
        torch.add(terms, 1, out=total)
        after.append(call())
    if "--keep" in sys.argv:
        keep("idle_threads", {policy: {"alone": alone, "after an addition": min(after)}})
    print(f"alone {alone * 1e3:.2f} ms   after an addition {min(after) * 1e3:.2f} ms")


def main() -> int:
    """One process for each policy."""
    keeping = sys.argv[1:2] if sys.argv[1:2] == ["--keep"] else []
    if sys.argv[1:] != keeping:
        measured(sys.argv[1])
        return 0
    for policy in ("default", "passive"):
        set_ = {} if policy == "default" else {"OMP_WAIT_POLICY": policy}
        print(f"{policy:<9}", end="", flush=True)
        command = [sys.executable, __file__, policy, *keeping]
        subprocess.run(command, env=os.environ | set_, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
