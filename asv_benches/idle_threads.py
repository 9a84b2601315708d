"""Time what PyTorch's idle threads cost a native call that follows an operation of PyTorch.

    python asv_benches/idle_threads.py [--keep]

After a parallel operation, PyTorch's OpenMP threads wait in a loop for the next one, unless
OMP_WAIT_POLICY=passive sends them to sleep. They take the cores on which threads of our own pool
would run. So in PyTorch the kernels run on PyTorch's threads. This script prints medians of many
calls of one kernel, on threads of our pool and on PyTorch's, alone and after an addition, under
both policies.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from statistics import median

import needs_native  # noqa: F401
from kept import keep

import lcmulti

CALLS = 300


def measured(policy: str) -> None:
    """Print and keep the times in this process."""
    import torch
    from lcmulti_native.library import MAPS, compute, geometry
    from lcmulti_native.torch_door import _openmp

    spec = lcmulti.LocalConvSpec((25, 25, 16), 16, 5, data_format="channels_last").computed()
    x, kernel = torch.rand(32, *spec.input_shape), torch.rand(*spec.kernel_shape)
    y = torch.empty(32, *spec.output_shape)
    terms = torch.rand(1 << 22)
    total = torch.empty_like(terms)
    addresses = x.data_ptr(), kernel.data_ptr(), y.data_ptr()
    made = geometry(spec, 32, "float32", torch.get_num_threads())

    def call(lender: int | None) -> float:
        start = time.perf_counter()
        compute(made, MAPS["forward"], *addresses, lender)
        return time.perf_counter() - start

    threads = {"a pool of our own": None, "PyTorch's": _openmp()}
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(CALLS):
        for whose, lender in threads.items():
            torch.add(terms, 1, out=total)
            times.setdefault((whose, "after an addition"), []).append(call(lender))
            time.sleep(0.02)  # after that, no thread waits in a loop any more
            times.setdefault((whose, "alone"), []).append(call(lender))
    for whose in threads:
        alone, after = (median(times[whose, when]) for when in ("alone", "after an addition"))
        print(f"{whose}: alone {alone * 1e3:.2f} ms   after an addition {after * 1e3:.2f} ms")
        if "--keep" in sys.argv:
            keep(
                "idle_threads", {f"{policy}, {whose}": {"alone": alone, "after an addition": after}}
            )


def main() -> int:
    """Run one process for each policy."""
    keeping = sys.argv[1:2] if sys.argv[1:2] == ["--keep"] else []
    if sys.argv[1:] != keeping:
        measured(sys.argv[1])
        return 0
    for policy in ("default", "passive"):
        set_ = {} if policy == "default" else {"OMP_WAIT_POLICY": policy}
        print(f"OMP_WAIT_POLICY {policy}", flush=True)
        subprocess.run(
            [sys.executable, __file__, policy, *keeping], env=os.environ | set_, check=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
