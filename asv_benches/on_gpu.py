"""Measure everything about the Triton kernels, in one run of at most nine minutes.

    python asv_benches/on_gpu.py [--minutes 9] [--out on_gpu.json] [--tiny] [--plot PICTURE]

It needs a GPU, PyTorch (from 2.11) and Triton (from 3.6). Nothing has to be installed: lcmulti is
taken from this checkout. On a machine without a GPU it runs tiny layers in Triton's interpreter.
That tests the script and measures nothing.

The JSON is written after every section, so that what was measured stays if time runs out.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

if not torch.cuda.is_available():  # before Triton is imported
    os.environ["TRITON_INTERPRET"] = "1"

import from_tree  # noqa: F401
import gpu_recipes as recipes
import numpy as np
from lcmulti_triton import state
from lcmulti_triton.decision import decided
from lcmulti_triton.estimate import H200, estimate, roofline
from lcmulti_triton.kept import figures_of
from lcmulti_triton.layer import layer_of

import lcmulti
from lcmulti.conformance.bounds import bounds, compare, expect
from lcmulti.conformance.inputs import draw
from lcmulti.plugins import load_implementation
from lcmulti.plugins.contract import Resources

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
MAPS = ("forward", "input_grad", "kernel_grad")
DTYPES = ("float32", "bfloat16")
RESOURCES = Resources(2**40)


def seconds(call: Callable[[], Any], least: float = 0.02) -> float:
    """The median time of several calls, between events on the GPU."""
    if not GPU:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    times: list[float] = []
    end = time.perf_counter() + 20 * least
    while len(times) < 5 or (sum(times) < least and time.perf_counter() < end):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) / 1e3)
    return float(np.median(times))


def machine(layers: list[recipes.Layer]) -> Iterator[dict[str, Any]]:
    """The GPU's rates, as a copy, the second-level cache and products reach them."""
    size = 2**28 if GPU else 2**12
    large = torch.ones(size, device=DEVICE)
    other, small = torch.empty_like(large), large[: size // 64]
    there = torch.empty_like(small)
    side = 8192 if GPU else 32
    a, b = (torch.ones(side, side, device=DEVICE) for _ in range(2))
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    half, twice = a.bfloat16(), b.bfloat16()
    yield {
        "name": torch.cuda.get_device_name() if GPU else "interpreter on a CPU",
        "torch": torch.__version__,
        "triton": sys.modules["triton"].__version__ if "triton" in sys.modules else None,
        "copy bytes/s": 8 * size / seconds(lambda: other.copy_(large)),
        "L2 bytes/s": 8 * small.numel() / seconds(lambda: there.copy_(small)),
        "float32 flop/s": 2 * side**3 / seconds(lambda: a @ b),
        "bfloat16 flop/s": 2 * side**3 / seconds(lambda: half @ twice),
    }


def correctness(layers: list[recipes.Layer]) -> Iterator[dict[str, Any]]:
    """Errors of all maps on 40 geometries against float64, as shares of the error bound."""
    from lcmulti.conformance.certify.geometries import GEOMETRIES

    names = [name for name in GEOMETRIES if name.startswith(("1d", "2d", "3d"))]
    wanted = names[:: len(names) // 40][:40] if GPU else ["1d-plain", "2d-one_of_each"]
    served = load_implementation("torch", "triton")
    for name in wanted:
        case = GEOMETRIES[name]
        for dtype in ("float32", "float16", "bfloat16", "float64") if GPU else ("float32",):
            inputs = draw(case, dtype)._replace(bias=None)
            bare = _without_bias(case)
            if bare.spec != bare.spec.computed():
                continue
            expected = expect(bare, inputs)
            limits = bounds(bare, expected, None, dtype)
            x, w, dy = (_tensor(each) for each in (inputs.x, inputs.kernel, inputs.dy))
            pairs = {"forward": (x, w), "input_grad": (dy, w), "kernel_grad": (x, dy)}
            for precision in ("ieee", "tf32x3") if dtype == "float32" else ("ieee",):
                resources = RESOURCES._replace(precision=precision, tiles="pinned")
                worst = {
                    map_: compare(
                        getattr(served, map_)(*pair, bare.spec, resources).cpu().double().numpy(),
                        getattr(expected.values, map_), getattr(limits, map_),
                    ).fraction
                    for map_, pair in pairs.items()
                }  # fmt: skip
                yield {"geometry": name, "dtype": dtype, "precision": precision, **worst}


def _without_bias(case: Any) -> Any:
    from dataclasses import replace

    return replace(case, bias_shared_axes=None)


def _tensor(array: Any) -> Any:
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).to(DEVICE)
    return torch.from_numpy(array).to(DEVICE)


def arrays(layer: recipes.Layer, dtype: str, first: bool = False) -> tuple[Any, Any, Any]:
    """``x``, the kernel and ``dy``, channels last or first."""
    kind, spec = getattr(torch, dtype), layer.spec
    x = torch.randn(layer.batch, *spec.input_shape, device=DEVICE).to(kind)
    w = torch.randn(spec.kernel_shape, device=DEVICE).to(kind) / math.sqrt(spec.terms)
    dy = torch.randn(layer.batch, *spec.output_shape, device=DEVICE).to(kind)
    if first:
        x, dy = (each.movedim(-1, 1).contiguous() for each in (x, dy))
    return x, w, dy


def maps(layers: list[recipes.Layer]) -> Iterator[dict[str, Any]]:
    """Each map over the roofline at the measured rates, and the estimate of it."""
    served = load_implementation("torch", "triton")
    for layer in layers:
        for dtype in DTYPES:
            x, w, dy = arrays(layer, dtype)
            pairs = {"forward": (x, w), "input_grad": (dy, w), "kernel_grad": (x, dy)}
            for map_, pair in pairs.items():
                function = getattr(served, map_)
                took = seconds(lambda f=function, p=pair, s=layer.spec: f(*p, s, RESOURCES))
                known = layer_of(map_, layer.spec, dtype, layer.batch)
                tile = decided(known, 0 if GPU else None, ("ieee", "tuned")).tile
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
    for layer in layers:
        for dtype in DTYPES:
            x, kernel, dy = arrays(layer, dtype, first=True)
            took: dict[str, float | None] = {}
            for name, (function, how) in recipes.contenders(layer).items():
                if not GPU and name == "compiled recipe":
                    continue
                try:
                    w = recipes.weights_of(kernel, layer.spec, how)
                    took[name] = seconds(_both(function, x, w, dy))
                except RuntimeError as error:  # a recipe may take all memory
                    took[name] = None
                    print(f"    {name}: {str(error).splitlines()[0][:60]}")
            peers = [t for n, t in took.items() if n not in ("triton", "blocked") and t]
            ours = took["triton"]
            ratio = min(peers) / ours if ours and peers else None
            yield {"layer": layer.name, "dtype": dtype, **took, "best recipe / triton": ratio}


def _both(function: Any, x: Any, w: Any, dy: Any) -> Callable[[], Any]:
    x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
    return lambda: torch.autograd.grad(function(x, w), (x, w), dy)


def small(layers: list[recipes.Layer]) -> Iterator[dict[str, Any]]:
    """The time of layers with almost no work, which is that of Python and launches."""
    spec = lcmulti.LocalConvSpec((6, 6, 2), 4, 3, data_format="channels_last")
    layer = recipes.Layer("small", spec, 4)
    x, kernel, dy = arrays(layer, "float32", first=True)
    found = {}
    for name, (function, how) in recipes.contenders(layer).items():
        if GPU or name != "compiled recipe":
            call = _both(function, x, recipes.weights_of(kernel, spec, how), dy)
            call()
            start, count = time.perf_counter(), 200 if GPU else 1
            for _ in range(count):
                call()
            if GPU:
                torch.cuda.synchronize()
            found[name] = (time.perf_counter() - start) / count
    yield found


def graphs(layers: list[recipes.Layer]) -> Iterator[dict[str, Any]]:
    """Capture forward and backward in a graph and replay it: compare the bits, and time it."""
    if not GPU:
        yield {"captured": "not without a GPU"}
        return
    layer = layers[0]
    x, w, dy = arrays(layer, "float32", first=True)
    call = _both(recipes.contenders(layer)["triton"][0], x, w, dy)
    expected = call()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = call()
    took = seconds(graph.replay)
    same = all(torch.equal(a, b) for a, b in zip(captured, expected, strict=True))
    yield {"layer": layer.name, "same bits": same, "replay": took, "eager": seconds(call)}


def memory(layers: list[recipes.Layer]) -> Iterator[dict[str, Any]]:
    """Peak bytes beyond inputs and results, in forward and backward."""
    for layer in layers if GPU else []:
        x, kernel, dy = arrays(layer, "float32", first=True)
        found = {}
        for name, (function, how) in recipes.contenders(layer).items():
            if name == "compiled recipe":
                continue
            call = _both(function, x, recipes.weights_of(kernel, layer.spec, how), dy)
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            try:
                results = call()
                kept = sum(each.numel() * each.element_size() for each in results)
                found[name] = torch.cuda.max_memory_allocated() - before - kept
            except RuntimeError:
                found[name] = None
        yield {"layer": layer.name, **found}


SECTIONS = (machine, correctness, maps, training, small, graphs, memory)
HERE = [H200]  # uses the measured rates, once there are any


def shown(row: dict[str, Any]) -> str:
    """A row as text."""

    def text(key: str, value: Any) -> str:
        if isinstance(value, float):
            is_time = key in ("seconds", "roofline", "replay", "eager") or value < 1e-2
            return f"{value * 1e6:,.1f} us" if is_time and value < 10 else f"{value:,.3g}"
        return str(value)

    return "  ".join(f"{key} {text(key, value)}" for key, value in row.items())


def means(rows: list[dict[str, Any]], key: str, **where: Any) -> float | None:
    """Geometric mean of *key* over the rows that *where* selects."""
    found = [row[key] for row in rows if all(row[k] == v for k, v in where.items()) and row[key]]
    return math.exp(sum(map(math.log, found)) / len(found)) if found else None


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """A summary of the figures."""
    checked = result.get("correctness", [])
    timed = result.get("maps", [])
    worst = max((row[map_] for row in checked for map_ in MAPS), default=None)
    return {
        "largest share of the error bound": worst,
        "times the roofline, float32": means(timed, "times", dtype="float32"),
        "times the roofline, bfloat16": means(timed, "times", dtype="bfloat16"),
        "best recipe / triton, float32": means(
            result.get("training", []), "best recipe / triton", dtype="float32"
        ),
        "best recipe / triton, bfloat16": means(
            result.get("training", []), "best recipe / triton", dtype="bfloat16"
        ),
    }


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw measured and estimated times over the roofline, with a bar for each layer and map."""
    from matplotlib.figure import Figure

    rows = [row for row in result["maps"] if row["dtype"] == "float32"]
    figure = Figure(figsize=(8, 0.22 * len(rows) + 1), layout="constrained")
    axes = figure.subplots()
    places = range(len(rows))
    axes.barh(places, [row["times"] for row in rows], color="#4878a8", label="measured")
    told = [(i, row["estimated times"]) for i, row in enumerate(rows) if row["estimated times"]]
    axes.plot([t for _, t in told], [i for i, _ in told], "k|", label="estimated for an H200")
    axes.set_yticks(places, [f"{row['layer']} {row['map']}" for row in rows], fontsize=6)
    axes.set(xlabel="times the roofline (float32)", xscale="log")
    axes.invert_yaxis()
    axes.legend()
    figure.savefig(path)


def main() -> int:
    """Run as many sections as time allows."""
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
    end = time.monotonic() + 60 * arguments.minutes
    layers = recipes.layers() if GPU and not arguments.tiny else recipes.tiny()
    result: dict[str, Any] = {}
    for section in SECTIONS:
        if arguments.only and section.__name__ not in arguments.only:
            continue
        print(f"{section.__name__}: {section.__doc__}", flush=True)
        rows = result[section.__name__] = []
        for row in section(layers):
            rows.append(row)
            print(f"  {shown(row)}", flush=True)
            if time.monotonic() > end:
                result["cut short"] = section.__name__
                break
        if section is machine and GPU:
            HERE[0] = H200._replace(
                memory=rows[0]["copy bytes/s"], float32=rows[0]["float32 flop/s"],
                half=rows[0]["bfloat16 flop/s"],
            )  # fmt: skip
        result["summary"] = summary(result)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        if "cut short" in result:
            print(f"  time is up after {arguments.minutes} minutes", flush=True)
            break
    for name, value in result["summary"].items():
        print(f"{name:<36} {value if value is None else format(value, '.3g')}")
    print(f"written to {arguments.out}")
    if arguments.plot:
        plot(result, arguments.plot)
    worst = result["summary"]["largest share of the error bound"]
    return int(worst is not None and not worst <= 1)


if __name__ == "__main__":
    sys.exit(main())
