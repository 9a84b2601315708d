"""Time the native kernels with channels first and with channels last.

    python asv_benches/channels_first.py [WORKLOAD ...] [--seconds 1] [--keep]

The numbers are the same in both formats, and calls take turns. Results are written to memory that
is allocated already. Times are medians of the sum of the three maps.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import count
from math import exp, log
from statistics import median
from typing import Any

import needs_native  # noqa: F401
import numpy as np
from kept import keep
from lcmulti_native.library import MAPS, compute, geometry
from lcmulti_native.numpy_door import _readable
from roofline import MEMORY

from lcmulti.bench.workloads import Workload, cases, named

Call = tuple[Any, int, int, int, int]


def calls(workload: Workload, first: bool) -> list[Call]:
    """The three maps on arrays of one data format."""
    spec, batch = workload.spec.computed(), workload.batch

    def array(shape: tuple[int, ...]) -> Any:
        values = np.random.default_rng(0).random((batch, *shape), dtype="float32")
        return np.moveaxis(np.moveaxis(values, -1, 1).copy(), 1, -1) if first else values

    x, y = array(spec.input_shape), array(spec.output_shape)
    kernel = np.random.default_rng(1).random(spec.kernel_shape, dtype="float32")
    made = geometry(spec, batch, "float32", None, _readable(x)[1], _readable(y)[1])
    reads = {"forward": (x, kernel, y), "input_grad": (y, kernel, x), "kernel_grad": (x, y, kernel)}
    return [
        (made, MAPS[map_], a, b, np.empty_like(result)) for map_, (a, b, result) in reads.items()
    ]


def run(of: list[Call]) -> float:
    """Return the seconds of the three maps together."""
    start = time.perf_counter()
    for made, map_, *arrays in of:
        compute(made, map_, *(each.__array_interface__["data"][0] for each in arrays))
    return time.perf_counter() - start


def main() -> int:
    """Print a row for each workload."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", nargs="*", help="names; all that fit by default")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each workload")
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    ratios = []
    for workload in named(arguments.workload or cases()):
        spec, batch = workload.spec, workload.batch
        if 4 * spec.bytes(batch) > MEMORY:
            continue
        orders = calls(workload, False), calls(workload, True)
        times: list[list[float]] = [[], []]
        end = time.perf_counter() + arguments.seconds
        for i in count():
            if i > 4 and time.perf_counter() > end:
                break
            for found, order in zip(times, orders, strict=True):
                found.append(run(order))
        last, first = map(median, times)
        ratios.append(first / last)
        row = f"last {last * 1e3:8.2f} ms   first {first * 1e3:8.2f} ms   {first / last:.2f}x"
        print(f"{workload.name:<20} {row}", flush=True)
        if arguments.keep:
            keep("channels_first", {workload.name: {"last": last, "first": first}})
    mean = exp(sum(map(log, ratios)) / len(ratios))
    print(f"geometric mean {mean:.2f}x, highest {max(ratios):.2f}x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
