"""The oracle made of loops, and the reference compared with it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcmulti.conformance import oracle
from lcmulti.conformance.bounds import bounds, compare, expect
from lcmulti.conformance.calls import MAPS
from lcmulti.conformance.case import Case
from lcmulti.conformance.cases import select
from lcmulti.conformance.certify import expectation
from lcmulti.conformance.certify.geometries import GEOMETRIES
from lcmulti.conformance.inputs import draw
from lcmulti.geometry.spec import LocalConvSpec

MODES = ("zeros", "reflect", "replicate", "circular")


def deviations(case, dtype):
    """Compare the reference in double precision with the oracle; return the deviations."""
    inputs = draw(case, dtype)
    expected = expect(case, inputs)
    limits = bounds(case, expected, inputs.bias, dtype)
    exact = oracle.results(inputs.x, inputs.kernel, inputs.bias, inputs.dy, case.spec)
    return {
        name: compare(value, answer, limit)
        for name, value, answer, limit in zip(MAPS, expected.values, exact, limits, strict=True)
        if value is not None
    }


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("case", select(["traps"]), ids=lambda case: case.name)
def test_the_reference_agrees_with_the_oracle(case, dtype):
    assert {name: d for name, d in deviations(case, dtype).items() if not d.ok} == {}


@st.composite
def cases(draw_one):
    axes = draw_one(st.integers(1, 3))

    def per_axis(low, high):
        return tuple(draw_one(st.integers(low, high)) for _ in range(axes))

    kernel, dilation, groups = per_axis(1, 3), per_axis(1, 2), draw_one(st.integers(1, 2))
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    size = tuple(e + draw_one(st.integers(0, 2)) for e in extent)
    mode = draw_one(st.sampled_from(MODES))
    most = {"reflect": min(size) - 1, "circular": min(size)}.get(mode, 2)
    padding = tuple(zip(per_axis(0, min(most, 2)), per_axis(0, min(most, 2)), strict=True))
    channels, filters = (groups * draw_one(st.integers(1, 2)) for _ in range(2))
    first = draw_one(st.booleans())
    some_axes = st.sets(st.integers(0, axes - 1)).map(sorted).map(tuple)
    return Case(
        "random",
        "test",
        (channels, *size) if first else (*size, channels),
        filters,
        kernel,
        draw_one(st.integers(0, 2)),
        draw_one(some_axes),
        draw_one(st.none() | some_axes),
        {
            "strides": per_axis(1, 3),
            "dilation": dilation,
            "padding": padding,
            "padding_mode": mode,
            "groups": groups,
            "data_format": "channels_first" if first else "channels_last",
        },
    )


@settings(max_examples=40, deadline=None)
@given(cases())
def test_the_reference_agrees_with_the_oracle_on_random_geometries(case):
    assert {name: d for name, d in deviations(case, "float64").items() if not d.ok} == {}


def test_the_oracle_by_hand():
    # y[o] = x[o] * kernel[o, 0] + x[o + 1] * kernel[o, 1] + bias[o]
    spec = LocalConvSpec((3, 1), filters=1, kernel_size=2, data_format="channels_last")
    x = np.array([[[2.0], [3.0], [5.0]]])
    kernel = np.array([[7.0, 11.0], [13.0, 17.0]]).reshape(spec.kernel_shape)
    bias = np.array([[100.0], [200.0]])
    dy = np.array([[[1.0], [10.0]]])
    y, dx, dkernel, dbias = oracle.results(x, kernel, bias, dy, spec)
    assert y.ravel().tolist() == [2 * 7 + 3 * 11 + 100, 3 * 13 + 5 * 17 + 200]
    assert dx.ravel().tolist() == [7, 11 + 130, 170]
    assert dkernel.ravel().tolist() == [2, 3, 30, 50]
    assert dbias.ravel().tolist() == [1, 10]
    assert y.dtype == np.longdouble


@pytest.mark.parametrize("kind", ["1d", "2d", "3d", "4d"])
def test_all_products_at_once_are_those_of_the_loops(kind):
    cases = [case for case in GEOMETRIES.values() if case.group == kind]
    for spec in {case.spec for case in cases[:: 1 if kind == "1d" else 5]}:
        shapes = spec.output_shape, spec.input_shape, spec.kernel_shape
        looped = [
            [int(np.ravel_multi_index(at, shape)) for at, shape in zip(term, shapes, strict=True)]
            for term in oracle.products(spec)
        ]
        assert np.transpose(expectation.products(spec)).tolist() == looped


@pytest.mark.parametrize("mode", MODES)
def test_the_oracle_pads_as_numpy_does(mode):
    names = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    spec = LocalConvSpec(
        (4, 1), 1, 1, padding=((2, 3),), padding_mode=mode, data_format="channels_last"
    )
    x = np.arange(1.0, 5.0)
    y = oracle.forward(x.reshape(1, 4, 1), np.ones(spec.kernel_shape), None, spec)
    assert y.ravel().tolist() == np.pad(x, (2, 3), mode=names[mode]).tolist()


def test_the_oracle_sees_a_difference_below_double_precision():
    if oracle.roundoff() >= 2.0**-53:
        pytest.skip("no extended precision on this machine")
    spec = LocalConvSpec((2, 1), 1, 2, data_format="channels_last")
    x = np.array([1.0, 2.0**-60]).reshape(1, 2, 1)
    assert oracle.forward(x, np.ones(spec.kernel_shape), None, spec) > 1
