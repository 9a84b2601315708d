"""Measure what forward + backward of the native kernels hold beyond results, in new processes.

    python asv_benches/peak_memory.py [numpy] [torch] [jax] [tensorflow] [--workload NAME ...]
        [--keep]

The figure is the growth of the peak resident memory (Linux: ``VmHWM``, reset before), less the
bytes of ``y`` and of the two gradients. It is counted from the time when the inputs exist and a
first small call was made. It may be at most 64 MiB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import needs_native  # noqa: F401
from kept import keep

from lcmulti.bench.workloads import Workload, cases, named

ALLOWED = 64.0
MEMORY = 12e9  # largest number of bytes of inputs and results, so that both fit


def measured(backend: str, workload: Workload) -> float:
    """Return the MiB that this process held beyond the results."""
    import numpy as np

    import lcmulti
    from lcmulti import plugins
    from lcmulti.conformance.certify.probe import reset_peak, status
    from lcmulti.plugins.contract import Resources

    owner = plugins.load_backend(backend)
    maps = plugins.load_implementation(backend, "native")

    def step(x: Any, kernel: Any, dy: Any, spec: lcmulti.LocalConvSpec) -> Any:
        if backend == "numpy":
            rest = spec.computed(), Resources(2**28)
            return [
                maps.forward(x, kernel, *rest),
                maps.input_grad(dy, kernel, *rest),
                maps.kernel_grad(x, dy, *rest),
            ]

        def call(x: Any, kernel: Any) -> Any:
            return lcmulti.local_conv(
                x, kernel, strides=spec.strides, padding=spec.padding,
                data_format="channels_last", implementation="native",
            )  # fmt: skip

        y, gradients = owner.vjp(call, (x, kernel), dy)
        return [y, *gradients]

    def arrays(spec: lcmulti.LocalConvSpec, batch: int) -> list[Any]:
        rng = np.random.default_rng(0)
        shapes = (batch, *spec.input_shape), spec.kernel_shape, (batch, *spec.output_shape)
        return [owner.from_numpy(rng.random(shape, dtype="float32")) for shape in shapes]

    def finished(made: list[Any]) -> list[Any]:
        """Wait for arrays, which JAX computes in the background."""
        if backend == "jax":
            import jax

            jax.block_until_ready(made)
        return made

    small = lcmulti.LocalConvSpec((40, 40, 8), 16, 3, data_format="channels_last")
    finished(step(*arrays(small, 8), small))
    spec, batch = workload.spec, workload.batch
    given = finished(arrays(spec, batch))
    before = reset_peak()
    finished(step(*given, spec))
    held = status("VmHWM") - before
    # Each result is as large as one of the arguments.
    return (held - sum(owner.to_numpy(each).nbytes for each in given)) / 2**20


def main() -> int:
    """Print one line for each framework; fail if any workload holds too much."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backend", nargs="*", default=["numpy", "torch", "jax", "tensorflow"])
    parser.add_argument("--workload", nargs="*", help="names; all that fit by default")
    parser.add_argument("--keep", action="store_true", help="in results/")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    chosen = named(arguments.workload or cases())
    chosen = [each for each in chosen if 2 * each.spec.bytes(each.batch, "float32") < MEMORY]
    if arguments.alone:
        print(json.dumps(measured(arguments.backend[0], chosen[0])))
        return 0
    most = 0.0
    for backend in arguments.backend:
        found = {}
        for workload in chosen:
            command = [sys.executable, __file__, backend, "--alone", "--workload", workload.name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[workload.name] = json.loads(done.stdout.splitlines()[-1])
            if arguments.keep:
                name = f"{backend} {workload.name}"
                keep("peak_memory", {name: {"MiB beyond results": found[workload.name]}})
        most = max(most, *found.values())
        line = "  ".join(f"{name} {held:.1f}" for name, held in found.items())
        print(f"{backend}: MiB beyond results: {line}", flush=True)
    return int(most > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
