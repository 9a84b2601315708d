"""Tiles that were measured on the user's GPU. The user's cache keeps them; a first call reads it.

There is one file for each GPU, version of Triton and source of the kernels, so that choices are not
used after one of these has changed. The key of a layer is what is compiled for it, not its sizes.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from lcmulti_triton.choice import candidates, nominal, refused_tf32x3
from lcmulti_triton.layer import Layer, Tile
from lcmulti_triton.starting import NAMES, on, start_of

__all__ = ["Measured", "file_of", "keep", "look_up", "measure"]

MILLISECONDS = 40
"""For so long each candidate runs on a GPU."""

_here: dict[tuple[Path, str], Tile] = {}
"""What this process measured, by file and layer."""


class Measured(NamedTuple):
    """One candidate. *seconds* is None if Triton failed, and *error* says why."""

    tile: Tile
    seconds: float | None
    error: str | None = None


def look_up(layer: Layer, device: int, may_measure: bool) -> tuple[Tile | None, str]:
    """The kept tile of a layer and its source; measured now if none is kept and settings allow it.

    It is not measured while a graph is captured, because a measurement must wait for results.
    """
    path, name = file_of(device), known_by(layer)
    tile = _kept(path, layer)
    unknown = tile is None and (path, name) not in _here
    if unknown and may_measure and not torch.cuda.is_current_stream_capturing():
        with suppress(torch.OutOfMemoryError):  # the caller's own arrays leave no room for more
            keep(layer, device, measure(layer, device))
        tile = _kept(path, layer)
    if tile is not None:
        return tile, f"measured here, kept in {path}"
    tile = _here.get((path, name))
    return tile, "measured here" if tile else ""


def _kept(path: Path, layer: Layer) -> Tile | None:
    """The tile that a file names, if it is one that serves; whatever else it holds is ignored."""
    found = _read(path).get(known_by(layer))
    sides = found.get("tile") if isinstance(found, dict) else None
    return next((tile for tile in candidates(nominal(layer)) if list(tile) == sides), None)


def known_by(layer: Layer) -> str:
    """The key of a layer: its map, its weights at each position and the class of its batch."""
    usual = nominal(layer)
    axes = ",".join(f"{a.kernel}/{a.stride}/{a.dilation}{'' if a.w else 's'}" for a in layer.axes)
    lie = "runs" if layer.runs else "apart" if layer.apart else "steps"
    return (
        f"{layer.map} {layer.dtype} {layer.channels}x{layer.filters}x{layer.groups} "
        f"{axes} {lie} batch {usual.batch}"
    )


def measure(
    layer: Layer,
    device: int | None,
    precision: str = "ieee",
    told: Callable[[Measured], None] = lambda measured: None,
) -> list[Measured]:
    """Time every candidate on random arrays of the layer's sizes; *told* is called after each.

    Parameters
    ----------
    layer : Layer
    device : int or None
        Number of the GPU; None for the interpreter.
    precision : {"ieee", "tf32x3"}
        Of float32 products; a candidate that does not take it is timed in ``"ieee"``.
    told : callable
        Called with a `Measured`.
    """
    found = []
    a, b, result = _arrays(layer, device)
    for tile in candidates(nominal(layer)):
        chosen = "ieee" if refused_tf32x3(layer, tile) else precision
        try:
            start = start_of(layer, tile, chosen, device, True)
            with on(device):
                one = Measured(tile, _seconds(partial(start, a, b, result), device))
        except Exception as error:  # out of registers or shared memory: not a candidate here
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            one = Measured(tile, None, said)
        found.append(one)
        told(one)
    return found


def keep(
    layer: Layer, device: int | None, found: list[Measured]
) -> tuple[Measured | None, str | None]:
    """Keep the fastest. Returns it, and why the cache could not be written, or None.

    If it could not be written, only this process keeps the tile.
    """
    served = [each for each in found if each.seconds is not None]
    if not served:
        return None, None
    best = min(served, key=lambda each: each.seconds or 0.0)
    path, name = file_of(device), known_by(layer)
    row = {"tile": list(best.tile), "microseconds": round((best.seconds or 0) * 1e6, 2)}
    _here[path, name] = best.tile
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(_read(path) | {name: row}, indent=1), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        return best, f"kept for this process alone: {error}"
    return best, None


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def file_of(device: int | None) -> Path:
    """The file with the choices for a GPU."""
    import platformdirs

    name = "interpreter" if device is None else torch.cuda.get_device_name(device)
    gpu = "".join(letter if letter.isalnum() else "_" for letter in name)
    folder = Path(platformdirs.user_cache_dir("lcmulti", appauthor=False)) / "tiles"
    return folder / f"{gpu}-triton_{triton.__version__}-{source()}.json"


@cache
def source() -> str:
    """A hash of the kernels' source."""
    files = sorted((Path(__file__).parent / "kernels").glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def _arrays(layer: Layer, device: int | None) -> tuple[Tensor, Tensor, Tensor]:
    dtype = next(kind for kind, name in NAMES.items() if name == layer.dtype)
    place = torch.device("cpu") if device is None else torch.device("cuda", device)

    def reach(sample: int, channels: int, channel: int, steps: list[tuple[int, int]]) -> int:
        inner = sum((n - 1) * step for n, step in steps) + (channels - 1) * channel
        return max(layer.batch - 1, 0) * sample + inner + 1

    x = reach(
        layer.x_sample, layer.channels * layer.groups, layer.x_channel,
        [(axis.size, axis.x) for axis in layer.axes],
    )  # fmt: skip
    y = reach(
        layer.y_sample, layer.filters * layer.groups, layer.y_filter,
        [(axis.out, axis.y) for axis in layer.axes],
    )  # fmt: skip
    w = layer.own * layer.terms * layer.filters * layer.groups
    x, y, w = (torch.randn(n, device=place).to(dtype) for n in (x, y, w))
    return {"forward": (x, w, y), "input_grad": (y, w, x), "kernel_grad": (x, y, w)}[layer.map]


def _seconds(call: Callable[[], None], device: int | None) -> float:
    """Seconds of one call with cold caches, as between the layers of a network."""
    if device is not None:
        return (
            float(triton.testing.do_bench(call, warmup=10, rep=MILLISECONDS, return_mode="median"))
            / 1e3
        )
    times = []
    for _ in range(2):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
