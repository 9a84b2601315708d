"""Forward + backward of lcmulti beside what people use today, in one process.

    python asv_benches/against_peers.py torch|jax|tensorflow [WORKLOAD ...] [--repeat 5]

The peers, and how they are timed, are those of ``lcmulti bench`` (`lcmulti.bench.peers`). What
is to be quoted is the ratio. A peer that cannot run, or not within a minute, is named.
"""

from __future__ import annotations

import argparse
import os
import sys
from math import exp, log
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from lcmulti.bench import bench
from lcmulti.bench.timing import Step, timed
from lcmulti.bench.workloads import cases, named

FRAMEWORKS = ("torch", "jax", "tensorflow")


def medians(steps: dict[str, Step], repeat: int) -> dict[str, float]:
    """Median seconds of each, interleaved, after two warm-ups each."""
    for step in steps.values():
        step()
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeat):
        for name, step in steps.items():
            times[name].append(timed(step))
    return {name: median(each) for name, each in times.items()}


def main() -> int:
    """Print the table, then the geometric means over the 2D workloads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("framework", choices=FRAMEWORKS)
    parser.add_argument("workload", nargs="*", help="names; all by default")
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    ratios: dict[str, list[float]] = {}
    print("forward + backward, float32; x: times as long as ours")
    for workload in named(arguments.workload or cases()):
        report = bench(
            [workload], backends=[arguments.framework], implementations=["auto"],
            variants=False, mode="training", repeat=arguments.repeat,
        )  # fmt: skip
        ours, *peers = report.rows
        row = f"{workload.name:<20} {ours.name:<9} "
        row += ours.problem if ours.seconds is None else f"{ours.seconds * 1e3:9.2f} ms"
        for peer in peers:
            ratio = report.relative(peer)
            row += f"  {peer.name} {peer.problem if ratio is None else f'{ratio:.2f}x'}"
            if workload.spec.ndim == 2 and ratio is not None:
                ratios.setdefault(peer.name, []).append(ratio)
        print(row, flush=True)
    for peer, each in ratios.items():
        mean = exp(sum(map(log, each)) / len(each))
        print(f"2D, {peer}: geometric mean {mean:.2f}x, lowest {min(each):.2f}x, of {len(each)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
