"""What the conformance suite's cases cover: geometries, sizes, published layers, random calls."""

import itertools
from math import prod

import pytest

from lcmulti.conformance.certify import layers, sizes
from lcmulti.conformance.certify.geometries import CONTRACT, COVERING, DERIVATIVES, GEOMETRIES
from lcmulti.conformance.certify.random_geometries import calls
from lcmulti.dtypes import DTYPES


def test_geometries_are_enough():
    groups = [case.group for case in GEOMETRIES.values()]
    for group in ("1d", "2d", "3d"):
        assert groups.count(group) >= 60
    assert groups.count("4d") > 10
    for names in (COVERING, DERIVATIVES, CONTRACT):
        assert set(names) <= set(GEOMETRIES)
    different = {(case.spec, case.batch, case.bias_shape) for case in GEOMETRIES.values()}
    assert len(different) == len(GEOMETRIES)


def test_geometries_cover_what_they_should():
    specs = {case.name: case.spec for case in GEOMETRIES.values()}
    cases, values = GEOMETRIES.values(), specs.values()
    assert {spec.padding_mode for spec in values} == {"zeros", "reflect", "replicate", "circular"}
    named = {case.options.get("padding") for case in cases if "padding" in case.options}
    assert {"same", "keras_same", "causal"} <= named
    assert {case.batch for case in cases} >= {0, 1, 17}
    assert any(spec.groups == spec.in_channels > 1 for spec in values)
    assert any(spec.strides > spec.kernel_size for spec in values)
    for ndim in (1, 2, 3):
        ours = [case for case in cases if case.spec.ndim == ndim]
        subsets = 2**ndim
        assert len({case.spec.shared_axes for case in ours}) == subsets
        assert len({case.bias_shared_axes for case in ours}) == subsets + 1
        assert {case.spec.data_format for case in ours} == {"channels_first", "channels_last"}


def sizes_met(kind, argument, side):
    """Return all sizes of an argument in one of the tables of sizes."""
    facts = {
        "batch": lambda case: case.batch,
        "channels": lambda case: case.spec.in_channels // case.spec.groups,
        "filters": lambda case: case.spec.filters // case.spec.groups,
        "groups": lambda case: case.spec.groups,
        "positions": lambda case: prod(case.spec.output_size),
        "taps": lambda case: prod(case.spec.kernel_size),
        "strides": lambda case: max(case.spec.strides),
        "dilation": lambda case: max(case.spec.dilation),
        "padding": lambda case: sum(case.spec.padding[0]) + 1,
    }
    return {facts[argument](case) for case in sizes.table(kind, side)}


@pytest.mark.parametrize("argument", ["batch", "channels", "filters", "groups", "positions",
    "taps", "strides", "dilation", "padding"])  # fmt: skip
def test_every_size_is_met_on_both_sides_of_each_power_of_two(argument):
    for power in range(13):
        at, over = 2**power, 2**power + 1
        met = sizes_met("any", argument, "at") | sizes_met("any", argument, "over")
        if argument in ("positions", "taps"):  # products of 2 or 3 sizes are near it
            least = 2 if argument == "taps" else 1
            assert any(at <= size <= 1.3 * at for size in met) or at <= least, (argument, at)
            assert any(over <= size <= 1.3 * over + 1 for size in met), (argument, over)
        else:
            assert {at, over} <= met, (argument, at)
    primes = set(sizes.PRIMES[::2] if argument == "taps" else sizes.PRIMES)
    assert primes <= sizes_met("any", argument, "between")


@pytest.mark.parametrize("kind", sizes.KINDS)
def test_other_types_meet_every_size_of_each_kind(kind):
    rows = [(case, dtype) for case, dtype in sizes.rows(few=False) if case.name.startswith(kind)]
    names = {case.name for case in sizes.table(kind, "over")}
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        assert names <= {case.name for case, each in rows if each == dtype}
    for argument in set(sizes.KINDS[kind]) & {"batch", "channels", "filters"}:
        assert {2**p + 1 for p in range(13)} <= sizes_met(kind, argument, "over")


def test_published_layers_are_as_they_are_published():
    specs = {name: case.spec for name, case in layers.LAYERS.items()}
    assert len(specs) >= 25
    for name in ("resnet20_16x16_local", "cuda_convnet_local3"):
        spec = specs[name]
        assert (spec.kernel_size, spec.padding) == ((3, 3), ((1, 1), (1, 1)))
        assert min(prod(spec.output_size), spec.in_channels, spec.filters) >= 32
    assert all(case.products > 2**15 for case in layers.LAYERS.values())


def test_every_other_random_call_is_as_layers_are():
    drawn = list(itertools.islice(calls(0), 200))
    as_layers = [case for case, _ in drawn if case.group == "as a layer"]
    assert len(as_layers) == 100
    assert all(len(set(case.spec.kernel_size)) == 1 for case in as_layers)
    least = [min(prod(c.spec.output_size), c.spec.in_channels, c.spec.filters) for c in as_layers]
    large = [size for size in least if size >= 32]
    assert len(large) >= 10
    assert {dtype for _, dtype in drawn} == set(DTYPES)
