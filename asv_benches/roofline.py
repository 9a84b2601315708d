"""Compare the native kernels with the best that this machine could do, in one run.

    python asv_benches/roofline.py [WORKLOAD ...] [--dtype float32] [--threads 2] [--rounds 1]
        [--keep]

The machine's streaming bandwidth and its rate of matrix products are measured before each workload,
and the best of each is used. Times are the least of all rounds. The roofline of a map is
``max(bytes / bandwidth, flops / rate)``, with each of its three arrays moved once; that of forward
+ backward is the sum over the three maps. Times are those of the kernels, which write to memory
that is allocated already. ``fresh`` is forward + backward through NumPy with newly allocated
results, whose pages the operating system must clear first.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
from math import exp, log
from typing import Any, NamedTuple

import numpy as np

os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ["OMP_NUM_THREADS"])

import needs_native  # noqa: F401
from kept import keep
from lcmulti_native.library import MAPS, compute, geometry, library
from lcmulti_native.numpy_door import empty, implementation

from lcmulti import LocalConvSpec
from lcmulti.bench.machine import bandwidth, rate
from lcmulti.bench.timing import least
from lcmulti.bench.workloads import Workload, cases, named
from lcmulti.dtypes import DTYPES
from lcmulti.plugins.contract import Resources

MEMORY = 16e9
OVERHEAD = 1e-3  # seconds of forward + backward below which a workload is mostly overhead


class Row(NamedTuple):
    """The measurements of one workload."""

    name: str
    spec: LocalConvSpec
    batch: int
    machine: tuple[float, float]  # bytes and flops a second
    times: dict[str, float]
    fresh: float
    faults: int

    def best(self, other: Row) -> Row:
        """Return the better figures of two rounds."""
        return self._replace(
            machine=tuple(map(max, zip(self.machine, other.machine, strict=True))),
            times={each: min(time, other.times[each]) for each, time in self.times.items()},
            fresh=min(self.fresh, other.fresh),
            faults=min(self.faults, other.faults),
        )


def measured(workload: Workload, dtype: str, threads: int) -> Row | None:
    """Measure one workload; None if it does not fit into memory."""
    name, batch = workload.name, workload.batch
    spec = workload.spec.computed()
    rng = np.random.default_rng(0)
    shapes = ((batch, *spec.input_shape), spec.kernel_shape, (batch, *spec.output_shape))
    x, kernel, dy = ((rng.random(s, dtype="float32") - 0.5).astype(dtype) for s in shapes)
    if 2 * (x.nbytes + kernel.nbytes + dy.nbytes) > MEMORY:
        return None
    call = geometry(spec, batch, dtype, threads)
    machine = bandwidth(threads), rate(dtype)
    times = {}
    for map_, a, b, like in (
        ("forward", x, kernel, dy),
        ("input_grad", dy, kernel, x),
        ("kernel_grad", x, dy, kernel),
    ):
        result = empty(like.shape, like.dtype)
        result[...] = 0
        addresses = [each.ctypes.data for each in (a, b, result)]
        times[map_] = least(lambda: compute(call, MAPS[map_], *addresses))  # noqa: B023
    resources = Resources(1 << 28, threads)

    def fresh() -> None:
        implementation.forward(x, kernel, spec, resources)
        implementation.input_grad(dy, kernel, spec, resources)
        implementation.kernel_grad(x, dy, spec, resources)

    allocating = least(fresh)
    faults = -resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    fresh()
    faults += resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    return Row(name, spec, batch, machine, times, allocating, faults)


def main() -> int:
    """Print the table and the geometric means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", nargs="*", help="names; all by default")
    parser.add_argument("--dtype", default="float32", choices=list(DTYPES)[:4])
    parser.add_argument("--threads", type=int, default=int(os.environ["OMP_NUM_THREADS"]))
    parser.add_argument("--rounds", type=int, default=1, help="so often, the best counts")
    parser.add_argument("--keep", action="store_true", help="in results/")
    arguments = parser.parse_args()
    dtype, threads = arguments.dtype, arguments.threads
    if dtype == "bfloat16":
        import ml_dtypes  # noqa: F401  (gives NumPy the type)
    chosen = named(arguments.workload or cases())
    best: dict[str, Row] = {}
    for workload in chosen * arguments.rounds:
        row = measured(workload, dtype, threads)
        if row is None:
            print(f"{workload.name}: does not fit", file=sys.stderr)
            continue
        best[row.name] = row.best(best.get(row.name, row))
        each = ", ".join(f"{map_} {seconds * 1e3:.2f} ms" for map_, seconds in row.times.items())
        print(f"{row.name}: {each}", file=sys.stderr)
    rows = [*best.values()]
    speed, flops_rate = map(max, zip(*(row.machine for row in rows), strict=True))
    print(
        f"{library().lcmulti_isa().decode()}, {threads} threads, {dtype}; "
        f"{speed / 1e9:.1f} GB/s, {flops_rate / 1e9:.0f} Gflop/s; times in ms, x: over roofline"
    )
    heads = "bound", "forward", "x", "fwd+bwd", "x", "fresh", "faults"
    widths = 7, 9, 6, 9, 6, 9, 8
    print(" " * 20 + "".join(f"{h:>{n}}" for h, n in zip(heads, widths, strict=True)))
    ratios: list[tuple[float, float]] = []
    found: dict[str, Any] = {}
    for name, spec, batch, _, times, allocating, faults in rows:
        moving, multiplying = spec.bytes(batch, dtype) / speed, spec.flops(batch) / flops_rate
        at_most = max(moving, multiplying)
        forward, both = times["forward"], sum(times.values())
        pair = forward / at_most, both / (3 * at_most)
        found[name] = {
            "bound": "memory" if moving > multiplying else "flops", "threads": threads,
            "bandwidth": speed, "rate": flops_rate, "roofline": at_most,
            **times, "fresh": allocating, "faults": faults, "forward x": pair[0], "both x": pair[1],
        }  # fmt: skip
        if both > OVERHEAD:
            ratios.append(pair)
        print(
            f"{name:<20}{'memory' if moving > multiplying else 'flops':>7}"
            f"{forward * 1e3:9.2f}{pair[0]:6.2f}{both * 1e3:9.2f}{pair[1]:6.2f}"
            f"{allocating * 1e3:9.2f}{faults:8d}"
        )
    if arguments.keep:
        keep(f"roofline_{dtype}", found)
    for what, each in zip(
        ("forward", "forward + backward"), zip(*ratios, strict=True), strict=True
    ):
        mean = exp(sum(map(log, each)) / len(each))
        print(
            f"{what}: geometric mean {mean:.2f}, highest {max(each):.2f}, of {len(each)} over 1 ms"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
