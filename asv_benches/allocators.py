"""Print what fresh memory costs in each framework, and with each allocator, as Markdown.

    python asv_benches/allocators.py [WORKLOAD ...] [--backends numpy,torch] [--forward]

The times are ms of forward and both gradients by the implementation that ``auto`` takes, each
measured in a process of its own. An allocator is tried if its library is found:
libtcmalloc-minimal4 or libjemalloc2.
"""

import argparse

from large_images import LARGE_IMAGES, own

from lcmulti import plugins
from lcmulti.bench import fresh
from lcmulti.bench.workloads import named


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", default=["eir_snp_1", *LARGE_IMAGES])
    parser.add_argument("--backends", default="numpy,torch,jax,tensorflow")
    parser.add_argument("--forward", action="store_true")
    given = parser.parse_args()
    known = [fresh.AS_IT_IS, *fresh.allocators()]
    print("| layer | backend |", " | ".join(known), "|")
    print("|---|---|" + "---|" * len(known))
    for name in given.workloads:
        each = own(name) if name in LARGE_IMAGES else named([name])[0]
        for backend in given.backends.split(","):
            if not plugins.is_installed(plugins.registry().backends[backend]):
                continue
            found = fresh.measured(each, backend, "float32", not given.forward, 120)
            cells = (f"{found[key] * 1e3:.1f}" if key in found else "" for key in known)
            print(f"| {name} | {backend} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
