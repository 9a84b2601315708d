"""Every geometry, map and kernel family is within the forward error bound.

The arrays lie between margins of NaN, so that a read outside them shows.
"""

from math import prod

import pytest
from helpers_triton import MAPS, TILES, check, operands
from lcmulti_triton.axes import axes_of
from lcmulti_triton.layer import layer_of

from lcmulti.conformance.certify.geometries import GEOMETRIES

DTYPES = ("float64", "float32", "float16", "bfloat16")


def programs(name):
    """Estimate how many programs the three maps run; the interpreter's time grows with them."""
    spec = GEOMETRIES[name].spec.computed()
    return 2 * prod(spec.output_size) + prod(spec.input_size)


ONE = [name for name in GEOMETRIES if name.startswith("1d-")][::2]
TWO = sorted((name for name in GEOMETRIES if name.startswith("2d-")), key=programs)[::2][:26]
MORE = ["3d-mixed", "3d-shared_0", "3d-padding_asymmetric_first", "4d-plain", "4d-mixed"]
EVERY = [*ONE, *TWO, *(name for name in MORE if name in GEOMETRIES)]
FORCED = [name for number, name in enumerate([*ONE, *TWO]) if number % 6 == 0]
QUICK = [ONE[0], ONE[-1], TWO[0], TWO[-1]]


def in_memory_order(case, arrays):
    """Lay the arrays of a channels-first case channels first; their axes stay channels last."""
    if case.spec.data_format == "channels_last":
        return arrays
    return [
        each if number == 1 else each.movedim(-1, 1).contiguous().movedim(1, -1)
        for number, each in enumerate(arrays)
    ]


def marked(name):
    return pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)


def test_there_are_enough():
    assert len(EVERY) >= 60
    assert {GEOMETRIES[name].spec.ndim for name in EVERY} == {1, 2, 3, 4}


@pytest.mark.parametrize("name", [*map(marked, EVERY)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_as_chosen(name, dtype, watch):
    case = GEOMETRIES[name]
    spec = case.spec.computed()
    arrays = in_memory_order(case, operands(spec, case.batch, dtype))
    for map_ in MAPS:
        check(map_, spec, arrays, watch, dtype=dtype)


@pytest.mark.parametrize("family", [each if each != "thin" else marked(each) for each in TILES])
@pytest.mark.parametrize("name", [*map(marked, FORCED)])
def test_forced(name, family, watch):
    case = GEOMETRIES[name]
    dtype = DTYPES[FORCED.index(name) % 4]
    spec = case.spec.computed()
    arrays = in_memory_order(case, operands(spec, min(case.batch, 3), dtype))
    for map_, tile in TILES[family].items():
        layer = layer_of(map_, spec, dtype, 1)
        if family.endswith("windows") and not layer.never_meets:
            continue
        if family == "lanes" and max(layer.channels, layer.filters) > 4:
            continue
        check(map_, spec, arrays, watch, tile, dtype)


def test_leading_axes_are_folded():
    spec = GEOMETRIES["4d-plain"].spec.computed()
    assert len(axes_of(spec)) == 4
