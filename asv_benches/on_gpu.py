"""Measure everything about the Triton kernels in one run of at most nine minutes.

    python asv_benches/on_gpu.py [--minutes 9] [--out on_gpu.json] [--tiny] [--plot PICTURE]

It needs a GPU, PyTorch (from 2.11) and Triton (from 3.6). lcmulti need not be installed: it is
imported from this checkout. On a machine without a GPU, the script runs tiny layers in Triton's
interpreter, which shows that it works and measures nothing.

Each section has a share of the time and is cut short when that is up. The JSON is written after
each section, so that results stay if a later one fails.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from gpu_asked import DEVICE, GPU, captured, name, peak, seconds, together

import from_tree  # noqa: F401 isort: skip
import gpu_recipes as recipes
import numpy as np
from gpu_report import plot, shown, summary
from lcmulti_triton import state
from lcmulti_triton.decision import decided
from lcmulti_triton.estimate import H200, estimate, roofline
from lcmulti_triton.kept import figures_of
from lcmulti_triton.layer import layer_of

import lcmulti
from lcmulti.conformance.bounds import bounds, compare, expect
from lcmulti.conformance.case import Case
from lcmulti.conformance.inputs import draw
from lcmulti.plugins import load_implementation
from lcmulti.plugins.contract import Resources

MAPS = ("forward", "input_grad", "kernel_grad")
DTYPES = ("float32", "bfloat16")
RESOURCES = Resources(2**40)
NUMBER = 0 if GPU else None
HERE = [H200]  # `machine` replaces its rates by those it measures

MANY = [  # sums long enough for tf32x3
    Case(f"{size}, window {kernel}", "tf32x3", size, filters, kernel, batch,
         bias_shared_axes=None, options={"data_format": "channels_last"} | more)
    for size, filters, kernel, batch, more in (
        ((3, 4, 8), 8, 3, 9, {}),
        ((9, 9, 16), 16, 3, 33, {}),
        ((13, 13, 16), 16, 7, 32, {"strides": 2}),
        ((200, 64), 64, 9, 64, {}),
    )
]  # fmt: skip


def machine(layers: list[recipes.Layer]) -> Iterator[dict[str, Any]]:
    """Rates of this GPU: of a copy, of the second-level cache and of matrix products."""
    size = 2**28 if GPU else 2**12
    large = torch.ones(size, device=DEVICE)
    other, small = torch.empty_like(large), large[: size // 64]
    there = torch.empty_like(small)
    side = 8192 if GPU else 32
    a, b = (torch.ones(side, side, device=DEVICE) for _ in range(2))
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    half, twice = a.bfloat16(), b.bfloat16()
    import triton

    found = {
        "name": name(), "torch": torch.__version__, "triton": triton.__version__,
        "copy bytes/s": 8 * size / seconds(lambda: other.copy_(large)),
        "L2 bytes/s": 8 * small.numel() / seconds(lambda: there.copy_(small)),
        "float32 flop/s": 2 * side**3 / seconds(lambda: a @ b),
        "bfloat16 flop/s": 2 * side**3 / seconds(lambda: half @ twice),
    }  # fmt: skip
    if GPU:
        HERE[0] = H200._replace(
            name=name(), memory=found["copy bytes/s"],
            float32=found["float32 flop/s"], half=found["bfloat16 flop/s"],
        )  # fmt: skip
    yield found


def correctness(layers: list[recipes.Layer]) -> Iterator[dict[str, Any]]:
    """All maps on 40 geometries against float64, as a share of the forward error bound.

    Each is computed in float32, long sums also by tf32x3, and in one of the other dtypes in turn.
    In the interpreter these leave out bfloat16, which it does not round as a GPU does.
    """
    served = load_implementation("torch", "triton")
    others = ("float16", "bfloat16", "float64") if GPU else ("float16", "float64")
    for number, case in enumerate(_checked()):
        kinds = [("float32", "ieee"), (others[number % len(others)], "ieee")]
        if case.group == "tf32x3":
            kinds.append(("float32", "tf32x3"))
        for dtype, precision in kinds:
            inputs = draw(case, dtype)._replace(bias=None)
            expected = expect(case, inputs)
            limits = bounds(case, expected, None, dtype)
            x, w, dy = (_tensor(each) for each in (inputs.x, inputs.kernel, inputs.dy))
            pairs = {"forward": (x, w), "input_grad": (dy, w), "kernel_grad": (x, dy)}
            resources = RESOURCES._replace(precision=precision, tiles="pinned")
            found = {
                map_: compare(
                    getattr(served, map_)(*pair, case.spec, resources).cpu().double().numpy(),
                    getattr(expected.values, map_), getattr(limits, map_),
                ).fraction
                for map_, pair in pairs.items()
            }  # fmt: skip
            yield {
                "geometry": case.name, "dtype": dtype, "precision": precision, **found,
                "worst": max(found.values()),
            }  # fmt: skip


def _checked() -> list[Case]:
    """Return 40 cases, channels last, without a bias or a padding mode around the maps."""
    from lcmulti.conformance.certify.geometries import GEOMETRIES

    bare = (replace(case, bias_shared_axes=None) for case in GEOMETRIES.values())
    plain = [case for case in bare if case.spec == case.spec.computed()]
    count = 40 - len(MANY)
    spread = [plain[i * len(plain) // count] for i in range(count)]
    return [*spread, *MANY] if GPU else [*spread[3::12], MANY[0]]


def _tensor(array: Any) -> Any:
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).to(DEVICE)
    return torch.from_numpy(array).to(DEVICE)


def arrays(layer: recipes.Layer, dtype: str, first: bool = False) -> tuple[Any, Any, Any]:
    """Draw ``x``, the kernel and ``dy``, channels last or first."""
    kind, spec = getattr(torch, dtype), layer.spec
    x = torch.randn(layer.batch, *spec.input_shape, device=DEVICE).to(kind)
    w = torch.randn(spec.kernel_shape, device=DEVICE).to(kind) / math.sqrt(spec.terms)
    dy = torch.randn(layer.batch, *spec.output_shape, device=DEVICE).to(kind)
    if first:
        x, dy = (each.movedim(-1, 1).contiguous() for each in (x, dy))
    return x, w, dy


def maps(layers: list[recipes.Layer]) -> Iterator[dict[str, Any]]:
    """Seconds of each map over the roofline by the rates measured here, and the estimate."""
    served = load_implementation("torch", "triton")
    for dtype, layer in ((dtype, layer) for dtype in DTYPES for layer in layers):
        x, w, dy = arrays(layer, dtype)
        pairs = {"forward": (x, w), "input_grad": (dy, w), "kernel_grad": (x, dy)}
        for map_, pair in pairs.items():
            function = getattr(served, map_)
            took = seconds(lambda f=function, p=pair, s=layer.spec: f(*p, s, RESOURCES))
            known = layer_of(map_, layer.spec, dtype, layer.batch)
            tile = decided(known, NUMBER, ("ieee", "tuned")).tile
            figures = figures_of(map_, dtype, tile)
            here = roofline(known, HERE[0])
            told = figures and estimate(known, tile, figures)
            yield {
                "layer": layer.name, "dtype": dtype, "map": map_, "tile": str(tile),
                "seconds": took, "roofline": here, "times": took / here,
                "estimated times": told and told.seconds / roofline(known),
                "bound": told and told.bound,
            }  # fmt: skip


def training(layers: list[recipes.Layer]) -> Iterator[dict[str, Any]]:
    """Forward and backward through autograd, beside each recipe, channels first."""
    for dtype, layer in ((dtype, layer) for dtype in DTYPES for layer in layers):
        took = _each(layer, dtype, seconds)
        peers = [t for n, t in took.items() if n not in ("triton", "blocked") and t]
        ours = took["triton"]
        ratio = min(peers) / ours if ours and peers else None
        yield {"layer": layer.name, "dtype": dtype, **took, "best recipe / triton": ratio}


def small(layers: list[recipes.Layer]) -> Iterator[dict[str, Any]]:
    """Layers of almost no work, whose time is that of Python and launches."""
    size = 6 if GPU else 3
    for batch in (4, 32):
        spec = lcmulti.LocalConvSpec((size, size, 2), 4, 3, data_format="channels_last")
        layer = recipes.Layer(f"{size}x{size}x2, {batch} samples", spec, batch)
        yield {"layer": layer.name, **_each(layer, "float32", together)}


def memory(layers: list[recipes.Layer]) -> Iterator[dict[str, Any]]:
    """The most bytes held beyond inputs and results, in forward and backward."""
    for layer in layers:
        yield {"layer": layer.name, **_each(layer, "float32", peak, but="compiled recipe")}


def _each(
    layer: recipes.Layer, dtype: str, measure: Callable[[Any], Any], but: str = ""
) -> dict[str, Any]:
    """Measure forward and backward of every contender after a first run; None if it fails."""
    x, kernel, dy = arrays(layer, dtype, first=True)
    found: dict[str, Any] = {}
    for who, (function, how) in recipes.contenders(layer).items():
        if who == but:
            continue
        try:
            call = _both(function, x, recipes.weights_of(kernel, layer.spec, how), dy)
            if GPU:
                call()
            found[who] = measure(call)
        except RuntimeError as error:  # such as a recipe that takes all memory
            found[who] = None
            print(f"    {who}: {str(error).splitlines()[0][:60]}")
    return found


def _both(function: Any, x: Any, w: Any, dy: Any) -> Callable[[], Any]:
    x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
    return lambda: torch.autograd.grad(function(x, w), (x, w), dy)


def graphs(layers: list[recipes.Layer]) -> Iterator[dict[str, Any]]:
    """A replayed capture of forward and backward: whether its bits are the same, and its time."""
    for layer in layers[:3]:
        x, w, dy = arrays(layer, "float32", first=True)
        call = _both(recipes.contenders(layer)["triton"][0], x, w, dy)
        expected = call()
        replay, results = captured(call)
        took = seconds(replay)
        same = all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))
        yield {"layer": layer.name, "same bits": same, "replay": took, "eager": seconds(call)}


# The share of the whole time that each section may take. The last ones have what is left.
SECTIONS = {
    machine: 0.1, correctness: 0.35, small: 0.1, graphs: 0.1, memory: 0.1, maps: 0.3, training: 1,
}  # fmt: skip
MARGIN = 20
"""Seconds before the end in which no further row is begun."""


def main() -> int:
    """Run the sections as far as time allows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9, help="stop after; default 9")
    parser.add_argument("--out", type=Path, default=Path("on_gpu.json"), metavar="FILE")
    parser.add_argument("--tiny", action="store_true", help="tiny layers on a GPU, too")
    parser.add_argument("--plot", type=Path, metavar="PICTURE", help="needs matplotlib")
    parser.add_argument("--only", nargs="*", help="names of sections")
    arguments = parser.parse_args()
    if reason := state.unavailable("gpu" if GPU else "cpu"):
        print(f"on_gpu.py: {reason}", file=sys.stderr)
        return 2
    whole = 60 * arguments.minutes - MARGIN
    end = time.monotonic() + whole
    layers = recipes.layers() if GPU and not arguments.tiny else recipes.tiny()
    result: dict[str, Any] = {}
    for section, share in SECTIONS.items():
        if arguments.only and section.__name__ not in arguments.only:
            continue
        print(f"{section.__name__}: {str(section.__doc__).splitlines()[0]}", flush=True)
        until = min(end, time.monotonic() + share * whole)
        rows = result[section.__name__] = []
        for row in section(layers):
            rows.append(row)
            print(f"  {shown(row)}", flush=True)
            if time.monotonic() > until:
                result.setdefault("cut short", []).append(section.__name__)
                print("  its time is up", flush=True)
                break
        result["summary"] = summary(result)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for what, value in result["summary"].items():
        print(f"{what:<36} {value if value is None else format(value, '.3g')}")
    print(f"written to {arguments.out}")
    if arguments.plot:
        plot(result, arguments.plot)
    worst = result["summary"]["largest share of the error bound"]
    return int(worst is not None and not worst <= 1)


if __name__ == "__main__":
    sys.exit(main())
