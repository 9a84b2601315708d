"""A layer and a tile as arguments of a kernel: those compiled in, and those passed at run time."""

from __future__ import annotations

from typing import Any

from lcmulti_triton.layer import Layer, Tile

__all__ = ["arguments", "constants", "names", "programs", "signature"]

POINTER = {"float16": "*fp16", "bfloat16": "*bf16", "float32": "*fp32", "float64": "*fp64"}
OPERANDS = {
    "forward": ("x", "w", "y"),
    "input_grad": ("y", "w", "x"),
    "kernel_grad": ("x", "y", "w"),
}
NAMES = (
    *(f"{name}{axis}" for name in "oiksdl" for axis in range(4)),
    *(f"{name}{axis}" for name in "xyw" for axis in range(4)),
    "xn", "xc", "yn", "yf",
)  # fmt: skip
STEPS = NAMES[24:]
MODULAR = tuple(f"{name}{axis}" for name in ("gcd", "inverse") for axis in range(4))


def constants(layer: Layer, tile: Tile, precision: str = "ieee") -> dict[str, Any]:
    """The parameters that are compiled in; none of them depends on sizes or the batch."""
    known = {
        "ND": len(layer.axes),
        "C": layer.channels,
        "F": layer.filters,
        "G": layer.groups,
        "TAPS": layer.taps,
        "XU": layer.x_unit,
        "YU": layer.y_unit,
        "APART": layer.apart,
        "WIDE": layer.wide,
        "DOUBLE": layer.dtype == "float64",
        "FAMILY": tile.family,
        "PRECISION": precision,
        "BN": tile.samples,
        "BT": tile.terms,
        "BF": tile.filters,
        "STAGES": tile.stages,
    }
    if layer.map == "forward":
        known["RUNS"] = layer.runs
    if layer.map == "input_grad":
        known["SLIDES"] = all(axis.stride == 1 for axis in layer.axes)
    if layer.map == "kernel_grad":
        known["SHARED"] = layer.is_shared
    return known


def arguments(layer: Layer, tile: Tile) -> tuple[int, ...]:
    """The arguments that are passed after the arrays, in the order of `names`."""
    axes = [*layer.axes]
    x, y = max(layer.x_unit, 1), max(layer.y_unit, 1)
    w = layer.terms * layer.filters * layer.groups
    columns = [
        [getattr(axis, name) // unit for axis in axes] + [fill] * (4 - len(axes))
        for name, unit, fill in (
            ("out", 1, 1), ("size", 1, 1), ("kernel", 1, 1), ("stride", 1, 1), ("dilation", 1, 1),
            ("low", 1, 0), ("x", x, 0), ("y", y, 0), ("w", w, 0),
        )
    ]  # fmt: skip
    steps = (layer.x_sample // x, layer.x_channel, layer.y_sample // y, layer.y_filter)
    passed = [layer.batch, positions(layer), *(n for column in columns for n in column), *steps]
    if layer.map == "input_grad":
        for name in ("gcd", "inverse"):
            passed += [getattr(axis, name) for axis in axes] + [1] * (4 - len(axes))
    return tuple(passed)


def names(map_: str) -> tuple[str, ...]:
    """The names of the parameters that are passed at run time."""
    modular = MODULAR if map_ == "input_grad" else ()
    return (*OPERANDS[map_], "batch", "positions", *NAMES, *modular)


def signature(layer: Layer, known: dict[str, Any]) -> dict[str, str]:
    """The type of each parameter, in the compiler's notation."""
    types = dict.fromkeys(names(layer.map), "i32")
    types |= dict.fromkeys(OPERANDS[layer.map], POINTER[layer.dtype])
    types |= dict.fromkeys(("xn", "yn"), "i64")
    if layer.wide:
        types |= dict.fromkeys(STEPS, "i64")
    return types | dict.fromkeys(known, "constexpr")


def positions(layer: Layer) -> int:
    """Number of positions over which programs are distributed."""
    return {"forward": layer.outputs, "input_grad": layer.inputs, "kernel_grad": layer.own}[
        layer.map
    ]


def programs(layer: Layer, tile: Tile) -> int:
    """Number of programs. 2**31 - 1 can be started, which is enough for about 2**36 elements."""
    samples = -(-layer.batch // tile.samples)
    filters = -(-layer.filters // tile.filters)
    where = positions(layer)
    if layer.map == "kernel_grad":
        terms = -(-layer.terms // tile.terms)
        if tile.family == "lanes":
            return layer.groups * -(-where // tile.terms)
        return filters * terms * layer.groups * where
    if tile.family == "lanes":
        return samples * layer.groups * -(-where // tile.terms)
    if layer.map == "forward":
        return samples * filters * layer.groups * where
    if tile.family.endswith("windows"):
        return samples * -(-layer.terms // tile.terms) * layer.groups * layer.outputs
    return samples * -(-layer.channels // tile.terms) * layer.groups * where
