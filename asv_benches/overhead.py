"""Time how many microseconds a native call takes beyond its kernel, in each framework.

    python asv_benches/overhead.py [numpy] [torch] [jax] [tensorflow] [--keep]

The problem is the smallest one, so that nearly all time is overhead. It times the door alone,
`lcmulti.local_conv` as a whole, and for comparison the framework's own ``x + x``, called in the
same way. Each time is the least of many runs of many calls.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import needs_native  # noqa: F401
import numpy as np
from kept import keep

import lcmulti
from lcmulti import plugins
from lcmulti.plugins.contract import Resources

SPEC = lcmulti.LocalConvSpec((2, 1), 1, 1, data_format="channels_last").computed()
RESOURCES = Resources(2**28)


def microseconds(call: Callable[[], Any], calls: int = 100, runs: int = 50) -> float:
    """Return the least time of one call."""
    call()
    least = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        least = min(least, time.perf_counter() - start)
    return least / calls * 1e6


def public(x: Any, kernel: Any) -> Any:
    """Call lcmulti as users do."""
    return lcmulti.local_conv(x, kernel, data_format="channels_last", implementation="native")


def add(x: Any, kernel: Any) -> Any:
    """Add two arrays: almost the least that a framework can do."""
    return x + x


Call = Callable[[], Any]


def doors(backend: str) -> tuple[Call, Call, Call, str]:
    """Return the door, the public call, the framework's own addition, and how they are called."""
    owner = plugins.load_backend(backend)
    x, kernel = (owner.from_numpy(np.ones(s, "float32")) for s in ((1, 2, 1), (2, 1, 1, 1)))
    door = plugins.load_implementation(backend, "native")

    def direct(x: Any = x, kernel: Any = kernel) -> Any:
        return door.forward(x, kernel, SPEC, RESOURCES)

    if backend == "jax":
        import jax

        steps = [jax.jit(each) for each in (direct, public, add)]
        # Each function refers to its own step.
        ready = [lambda step=step: step(x, kernel).block_until_ready() for step in steps]
        return (*ready, "jitted")
    if backend == "tensorflow":
        import tensorflow as tf

        steps = [tf.function(each) for each in (direct, public, add)]
        return (*(lambda step=step: step(x, kernel) for step in steps), "in a function")
    return direct, lambda: public(x, kernel), lambda: add(x, kernel), "eager"


def main() -> int:
    """Print one line for each framework."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backend", nargs="*", help="names; ours by default")
    parser.add_argument("--keep", action="store_true", help="in results/")
    arguments = parser.parse_args()
    for backend in arguments.backend or ("numpy", "torch", "jax", "tensorflow"):
        *calls, how = doors(backend)
        door, call, own = map(microseconds, calls)
        print(
            f"{backend:<11}{how:<14} door {door:6.1f} us   local_conv {call:6.1f} us"
            f"   x + x {own:6.1f} us",
            flush=True,
        )
        if arguments.keep:
            row = {"how": how, "door us": door, "local_conv us": call, "x + x us": own}
            keep("overhead", {backend: row})
    return 0


if __name__ == "__main__":
    sys.exit(main())
