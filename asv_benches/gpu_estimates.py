"""Print the table of estimates in docs/performance.md: each map over the roofline, on an H200.

python asv_benches/gpu_estimates.py     # prints it; no GPU is needed, and nothing is measured
"""

from __future__ import annotations

from typing import Any

from lcmulti_triton.decision import decided
from lcmulti_triton.estimate import estimate, roofline
from lcmulti_triton.kept import figures_of
from lcmulti_triton.layer import Layer, layer_of

from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Map

LAYERS = (
    ("63x63x16 k7 s2 F16 N32", (63, 63, 16), 7, 2, 16, 32, "float32"),
    ("30x30x64 k3 F32 N32", (30, 30, 64), 3, 1, 32, 32, "float32"),
    ("8x8x256 k3 F256 N512", (8, 8, 256), 3, 1, 256, 512, "float32"),
    ("the same in bfloat16", (8, 8, 256), 3, 1, 256, 512, "bfloat16"),
    ("160000x4 k16 s16 F4 N32", (160000, 4), 16, 16, 4, 32, "float32"),
    ("256x256x1 k3 F2 N8", (256, 256, 1), 3, 1, 2, 8, "float32"),
)
MAPS: tuple[Map, ...] = ("forward", "input_grad", "kernel_grad")


def layer_of_row(row: tuple[Any, ...], map_: Map) -> Layer:
    """Make the layer of one map from a row of `LAYERS`."""
    _, shape, kernel, strides, filters, batch, dtype = row
    spec = LocalConvSpec(shape, filters, kernel, strides=strides, data_format="channels_last")
    return layer_of(map_, spec.computed(), dtype, batch)


def table() -> list[str]:
    """Return a Markdown table with a row for each layer."""
    lines = ["| layer | roofline us | forward | input's gradient | kernel's gradient |"]
    lines.append("|---|---|---|---|---|")
    for row in LAYERS:
        cells = []
        for map_ in MAPS:
            layer = layer_of_row(row, map_)
            tile = decided(layer, None, ("ieee", "pinned")).tile
            figures = figures_of(map_, layer.dtype, tile)
            assert figures is not None, f"no figures of {tile} are kept"
            told = estimate(layer, tile, figures)
            size = f"{tile.family} {tile.samples}x{tile.terms}x{tile.filters}"
            cells.append(f"{told.seconds / roofline(layer):.1f} ({told.bound}; {size})")
        lines.append(f"| {row[0]} | {roofline(layer) * 1e6:.1f} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
