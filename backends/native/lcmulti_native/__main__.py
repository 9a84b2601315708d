"""Measure how much faster the kernels are on this machine: ``python -m lcmulti_native``."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np

from lcmulti import LocalConvSpec, config, plugins
from lcmulti.plugins.contract import Implementation, Resources

# DeepFace's L6 (Taigman et al. 2014) with a quarter of its batch; a step takes less than a second.
SPEC = LocalConvSpec((25, 25, 16), 16, 5, data_format="channels_last")
BATCH, TURNS = 8, 7


def step(maps: Implementation, arrays: tuple[np.ndarray, ...]) -> Callable[[], None]:
    """One training step: forward and both gradients."""
    x, kernel, dy = arrays
    rest = (SPEC, Resources(config.max_workspace, config.threads))

    def run() -> None:
        maps.forward(x, kernel, *rest)
        maps.input_grad(dy, kernel, *rest)
        maps.kernel_grad(x, dy, *rest)

    return run


def main() -> None:
    """Time both implementations in turns, and print the ratio of their medians."""
    rng = np.random.default_rng(0)
    shapes = ((BATCH, *SPEC.input_shape), SPEC.kernel_shape, (BATCH, *SPEC.output_shape))
    arrays = tuple(rng.standard_normal(shape, np.float32) for shape in shapes)
    steps = {
        name: step(plugins.load_implementation("numpy", name), arrays)
        for name in ("native", "blocked")
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(TURNS + 1):
        for name, run in steps.items():
            start = time.perf_counter()
            run()
            if turn:  # the first loads and plans
                seconds[name].append(time.perf_counter() - start)
    native, blocked = (median(seconds[name]) for name in ("native", "blocked"))
    print(
        f"native kernels: a training step of DeepFace's L6 in {native * 1e3:.1f} ms, "
        f"{blocked / native:.1f} times as fast as without them"
    )


if __name__ == "__main__":
    main()
