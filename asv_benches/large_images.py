"""Print how far layers of few channels and filters on large images are from the roofline.

    python asv_benches/large_images.py [--threads 2]

Times are the least of each map of the native kernels, in the layer's own memory order, written to
memory that is allocated already. The roofline is that of `roofline.py`, measured in the same run.
"""

from __future__ import annotations

import argparse
import math

import channels_first
from lcmulti_native.library import MAPS, compute, library

import lcmulti
from lcmulti.bench import workload
from lcmulti.bench.machine import bandwidth, rate
from lcmulti.bench.timing import least
from lcmulti.bench.workloads import Workload

__all__ = ["LARGE_IMAGES", "own"]

LARGE_IMAGES = {
    "128x128x8 to 8, channels last": ((128, 128, 8), 8, "channels_last"),
    "64x64x3 to 32, channels first": ((3, 64, 64), 32, "channels_first"),
}


def own(name: str) -> Workload:
    """Return the workload of a layer with few channels and filters on large images."""
    shape, filters, data_format = LARGE_IMAGES[name]
    spec = lcmulti.LocalConvSpec(shape, filters, 3, padding=1, data_format=data_format)
    return workload(spec, 32, name)


def main() -> None:
    """Print a Markdown table with a row for each layer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    numbers = {number: name for name, number in MAPS.items()}
    print(
        f"{library().lcmulti_isa().decode()}, {arguments.threads} threads, ms (over the roofline)\n"
    )
    print("| layer | roofline of a map | forward | input's gradient | kernel's gradient | sum |")
    print("|---|---|---|---|---|---|")
    for name in LARGE_IMAGES:
        layer = own(name)
        spec, first = layer.spec, layer.spec.data_format == "channels_first"
        moving = spec.bytes(layer.batch, "float32") / bandwidth(arguments.threads)
        roofline = max(moving, spec.flops(layer.batch) / rate("float32"))
        times = {}
        for made, map_, *arrays in channels_first.calls(layer, first):
            places = [each.__array_interface__["data"][0] for each in arrays]
            arrays[-1][...] = 0
            times[numbers[map_]] = least(lambda: compute(made, map_, *places))  # noqa: B023
        cells = [f"{seconds * 1e3:.1f} ({seconds / roofline:.1f})" for seconds in times.values()]
        total = math.fsum(times.values())
        cells.append(f"{total * 1e3:.1f} ({total / roofline / 3:.1f})")
        print(f"| {name} | {roofline * 1e3:.1f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
