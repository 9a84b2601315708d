"""Time forward + backward of lcmulti and of the peers that people use today, in one process.

    python asv_benches/against_peers.py torch|jax|tensorflow [WORKLOAD ...] [--device gpu] [--keep]

The peers and their timing are those of ``lcmulti bench`` (`lcmulti.bench.peers`). Channels are
first in PyTorch and last elsewhere, for lcmulti and for the peers. Quote the ratio, not the times.
A peer that cannot run, or not within a minute, is listed with the reason.
"""

from __future__ import annotations

import argparse
import os
import sys
from math import exp, log
from statistics import median
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from lcmulti.bench import bench
from lcmulti.bench.timing import Step, timed
from lcmulti.bench.workloads import cases, in_format, named

FRAMEWORKS = ("torch", "jax", "tensorflow")


def medians(steps: dict[str, Step], repeat: int) -> dict[str, float]:
    """Return the median seconds of each step. Calls are interleaved, after two calls to warm up."""
    for step in steps.values():
        step()
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeat):
        for name, step in steps.items():
            times[name].append(timed(step))
    return {name: median(each) for name, each in times.items()}


def main() -> int:
    """Print the table, then the geometric mean over the best peers of each workload."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("framework", choices=FRAMEWORKS)
    parser.add_argument("workload", nargs="*", help="names; all by default")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="cpu or gpu; default cpu")
    parser.add_argument("--limit", type=float, default=60, help="seconds that a peer may take")
    parser.add_argument("--keep", action="store_true", help="in results/; needs lcmulti-native")
    arguments = parser.parse_intermixed_args()
    ratios: list[float] = []
    print("forward + backward, float32; x: times as long as ours")
    # The data format that users of each framework usually have.
    order = "channels_first" if arguments.framework == "torch" else "channels_last"
    for each in named(arguments.workload or cases()):
        workload = each._replace(spec=in_format(each.spec, order))
        report = bench(
            [workload], backends=[arguments.framework], implementations=["auto"],
            variants=False, mode="training", repeat=arguments.repeat, limit=arguments.limit,
            device=arguments.device,
        )  # fmt: skip
        ours, *peers = report.rows
        row = f"{workload.name:<20} {ours.name:<9} "
        over = None
        if ours.problem is not None:  # the first call also builds and compiles
            row += ours.problem
        else:
            over = ours.seconds / ours.roofline
            row += f"{ours.seconds * 1e3:9.2f} ms, {over:.2f} x roofline"
        times: dict[str, Any] = {}
        for peer in peers:
            ratio = report.relative(peer)
            row += f"  {peer.name} {peer.problem or ('' if ratio is None else f'{ratio:.2f}x')}"
            times[peer.name] = peer.problem or peer.seconds
        print(row, flush=True)
        measured = [seconds for seconds in times.values() if not isinstance(seconds, str)]
        best = min(measured) / ours.seconds if measured and over is not None else None
        if best is not None:
            ratios.append(best)
        if arguments.keep:
            from kept import keep

            found = {"implementation": ours.name, "seconds": ours.problem or ours.seconds}
            found |= {"x roofline": over, "peers": times, "best peer x": best}
            suffix = "" if arguments.device == "cpu" else f"_{arguments.device}"
            gpu = report.machine.processor if suffix else None
            keep(f"against_{arguments.framework}{suffix}", {workload.name: found}, gpu)
    if ratios:
        mean = exp(sum(map(log, ratios)) / len(ratios))
        print(f"best peer: geometric mean {mean:.2f}x, lowest {min(ratios):.2f}x, of {len(ratios)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
