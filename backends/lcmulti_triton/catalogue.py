"""The kernels whose figures are kept: each tile of each map, and special variants.

    python -m lcmulti_triton.catalogue sm_90           # compile all, compare with the table
    python -m lcmulti_triton.catalogue --write         # compile for every target, write the table
    python -m lcmulti_triton.catalogue --write sm_90   # the same for one target

It needs Triton, but no GPU.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget

from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Map
from lcmulti_triton.choice import candidates
from lcmulti_triton.figures import Figures, figures
from lcmulti_triton.kept import TABLE, key, table
from lcmulti_triton.layer import Layer, Tile, layer_of
from lcmulti_triton.starting import KERNELS, compile_for
from lcmulti_triton.variant import constants

__all__ = ["TARGETS", "Variant", "compiled_to", "problems", "variants"]

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "sm_120": GPUTarget("cuda", 120, 32),
    "gfx90a": GPUTarget("hip", "gfx90a", 64),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
WIDE = LocalConvSpec((30, 30, 64), 64, 3, data_format="channels_last")
APART = LocalConvSpec((30, 30, 64), 64, 3, strides=3, data_format="channels_last")
FEW = LocalConvSpec((30, 30, 1), 2, 3, data_format="channels_last")
LARGE = LocalConvSpec((10, 10, 256), 256, 3, data_format="channels_last")


class Variant(NamedTuple):
    """One compiled variant of a kernel."""

    name: str
    layer: Layer
    tile: Tile
    precision: str = "ieee"


def variants() -> dict[str, Variant]:
    """All variants by name."""
    return {each.name: each for each in (*_tiles(), *_special())}


def _tiles() -> Iterator[Variant]:
    """The tiles that `choice.estimated` chooses among."""
    for map_ in KERNELS:
        for spec, batch, dtype in (
            (LARGE, 256, "float32"), (LARGE, 256, "bfloat16"), (LARGE, 256, "float64"),
            (APART, 256, "float32"), (FEW, 8, "float32"),
            (WIDE, 8, "float32"), (WIDE, 1, "float32"),
        ):  # fmt: skip
            layer = layer_of(map_, spec.computed(), dtype, batch)
            tiles = candidates(layer)
            if dtype == "float64":
                tiles = tiles[:1]
            elif spec is APART:
                tiles = tiles[:3] if tiles[0].family == "windows" else []
            elif spec is not LARGE:
                tiles = tiles[:1]
            for tile in tiles:
                yield Variant(key(map_, dtype, tile), layer, tile)


def _special() -> Iterator[Variant]:
    """Variants for properties of a layer that are compiled in; one tile each."""
    small = {
        "forward": Tile("tiles", 32, 16, 16, 1, 3),
        "input_grad": Tile("tiles", 32, 16, 16, 1, 3),
        "kernel_grad": Tile("tiles", 16, 32, 16, 1, 3),
    }
    maps: tuple[Map, ...] = ("forward", "input_grad", "kernel_grad")
    first = (64 * 900, 30, 1, 900), (64 * 784, 28, 1, 784)
    cases: dict[str, Callable[[Map], Layer]] = {
        "channels first": lambda map_: layer_of(map_, WIDE.computed(), "float32", 32, *first),
        "groups": lambda map_: _layer(map_, groups=4),
        "dilation": lambda map_: _layer(map_, dilation=2),
        "few filters": lambda map_: _layer(map_, filters=4),
        "long offsets": lambda map_: layer_of(
            map_, WIDE.computed(), "float32", 32, (2**40, 2**32, 64, 1), (2**40, 2**32, 64, 1)
        ),
        "shared": lambda map_: _layer(map_, shared_axes=(0,)),
        "float16": lambda map_: layer_of(map_, WIDE.computed(), "float16", 32),
    }
    for map_ in maps:
        for name, make in cases.items():
            if name == "shared" and map_ != "kernel_grad":
                continue  # for the other maps a shared axis only has a stride of 0
            layer = make(map_)
            yield Variant(key(map_, layer.dtype, small[map_], name), layer, small[map_])
        if map_ != "kernel_grad":
            layer = layer_of(map_, WIDE.computed(), "float32", 32)
            tile = small[map_]
            yield Variant(key(map_, "float32", tile, "tf32x3"), layer, tile, "tf32x3")


def _layer(map_: Map, filters: int = 64, **options: Any) -> Layer:
    spec = LocalConvSpec((30, 30, 64), filters, 3, data_format="channels_last", **options)
    return layer_of(map_, spec.computed(), "float32", 32)


def compiled_to(target: str, name: str) -> Figures:
    """Compile one variant for a target, and read its figures."""
    variant = variants()[name]
    known = constants(variant.layer, variant.tile, variant.precision)
    return figures(
        compile_for(TARGETS[target], variant.layer, known, variant.tile.warps, variant.tile.stages)
    )


def _pair(pair: tuple[str, str]) -> tuple[str, str, Figures]:
    return (*pair, compiled_to(*pair))


def names_for(target: str) -> list[str]:
    """What is compiled for a target: tf32x3 is NVIDIA's alone."""
    on_amd = target.startswith("gfx")
    return [name for name in variants() if not (on_amd and name.endswith("tf32x3"))]


def compile_all(targets: list[str]) -> dict[str, dict[str, Figures]]:
    """Figures by target and name; two at a time."""
    pairs = [(target, name) for target in targets for name in names_for(target)]
    found: dict[str, dict[str, Figures]] = {target: {} for target in targets}
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for target, name, got in pool.map(_pair, pairs, chunksize=4):
            found[target][name] = got
            done = sum(map(len, found.values()))
            print(
                f"\r{done} of {len(pairs)} {target} {name:<60}", end="", file=sys.stderr, flush=True
            )
    print(file=sys.stderr)
    return found


def problems(target: str, name: str, got: Figures, kept: Figures | None) -> list[str]:
    """Describe what is worse than the kept figures."""
    if kept is None:
        return [f"{target} {name}: no figures are kept"]
    found = []
    if got.spills > kept.spills:
        found.append(f"spills {got.spills}, kept {kept.spills}")
    if got.registers > kept.registers + 8:
        found.append(f"{got.registers} registers, kept {kept.registers}")
    if got.shared > kept.shared:
        found.append(f"{got.shared} bytes of shared memory, kept {kept.shared}")
    if got.wide_loads < kept.wide_loads:
        found.append(f"{got.wide_loads} loads of 16 bytes, kept {kept.wide_loads}")
    if got.loads > kept.loads:
        found.append(f"{got.loads} loads, kept {kept.loads}")
    if got.multiply != kept.multiply:
        found.append(f"multiplies by {got.multiply}, kept {kept.multiply}")
    if got.loop > kept.loop * 1.05 + 4:
        found.append(f"{got.loop} instructions a step, kept {kept.loop}")
    return [f"{target} {name}: {each}" for each in found]


def main(arguments: list[str]) -> int:
    """Compare with the table, or write it, for the named targets or for all."""
    writes = "--write" in arguments
    targets = [each for each in arguments if each != "--write"] or [*TARGETS]
    found = compile_all(targets)
    if writes:
        _write({**table()["targets"], **found})
        return 0
    worse = [
        problem
        for target, kernels in found.items()
        for name, got in kernels.items()
        for problem in problems(target, name, got, kept_figures(target, name))
    ]
    print("\n".join(worse) or "as kept")
    return bool(worse)


def _write(found: dict[str, dict[str, Figures]]) -> None:
    """The table with one line for each kernel, so that a diff shows what has changed."""
    path = Path(__file__).parent / "data" / TABLE
    path.parent.mkdir(exist_ok=True)
    blocks = []
    for target in TARGETS:
        rows = (
            f"   {json.dumps(name)}: {json.dumps(got)}"
            for name, got in found.get(target, {}).items()
        )
        blocks.append(f"  {json.dumps(target)}: {{\n" + ",\n".join(rows) + "\n  }")
    head = f'{{\n "triton": "{triton.__version__}",\n "columns": {json.dumps(Figures._fields)},\n'
    body = ' "targets": {\n' + ",\n".join(blocks) + "\n }\n}\n"
    path.write_text(head + body, encoding="utf-8")


def kept_figures(target: str, name: str) -> Figures | None:
    """Read the table."""
    found = table()["targets"].get(target, {}).get(name)
    return None if found is None else Figures(*found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
