"""The parts of untying that no framework needs: choice of layers, plans, tolerances, examples."""

import numpy as np
import pytest

from lcmulti.errors import ArgumentError, ArgumentTypeError, TooLargeError
from lcmulti.untying import (
    Row,
    Untying,
    arguments_of,
    chosen,
    planned,
    require_same,
    strength_of,
    tied,
    tolerance_of,
)

THERE = [("stem", 1), ("body.0", 2), ("body.1", 2.0)]


def test_where_takes_names_patterns_classes_and_predicates():
    names = lambda where: [name for name, _ in chosen(where, THERE)]  # noqa: E731
    assert names(None) == ["stem", "body.0", "body.1"]
    assert names("stem") == ["stem"] and names("body.*") == ["body.0", "body.1"]
    assert names(float) == ["body.1"]
    assert names(lambda name, module: module == 1) == ["stem"]
    assert names(["body.1", int]) == ["stem", "body.0", "body.1"]
    for misspelt in ("steam", ["stem", "steam"], str):
        with pytest.raises(ArgumentError, match="where: .*'stem', 'body.0', 'body.1'"):
            names(misspelt)
    for none in (lambda name, module: False, [lambda name, module: None]):
        with pytest.raises(ArgumentError, match="where: .*chooses some of 'stem', 'body.0', 'bod"):
            names(none)
    with pytest.raises(ArgumentTypeError, match="where: "):
        names(3)
    with pytest.raises(ArgumentError, match="where: expected at least one"):
        names([])


def row(name, conv, size):
    return Row(name, type(conv).__name__, (3, 3), size, 10, 10**6 * size[0], 4)


def test_a_plan_tells_what_stays_and_why():
    unfit = lambda conv: "it is no integer" if isinstance(conv, float) else None  # noqa: E731
    plan, sizes = planned(THERE, {"stem": [(4, 4)], "body.1": [(2,)]}, False, unfit, row)
    assert sizes == {"stem": (4, 4)} and plan.parameters == (10, 4 * 10**6)
    assert plan.left == (
        ("body.0", "the example does not reach it"), ("body.1", "it is no integer")
    )  # fmt: skip
    told = []
    plan.announce(told.append, "1GiB")
    assert "left as it is: body.1 (it is no integer)" in told[0]
    with pytest.raises(TooLargeError, match=r"1.0 KiB, the limit, got 15.3 MiB, .*stem"):
        plan.announce(None, 1024)
    with pytest.raises(ArgumentTypeError, match="tell: expected a function"):
        plan.announce("yes", None)
    with pytest.raises(ArgumentError, match="where: .*body.1: it is no integer"):
        planned(THERE, {"stem": [(4, 4)], "body.0": [(2,)]}, True, unfit, row)
    with pytest.raises(ArgumentError, match="model: .*reaches"):
        planned(THERE, {}, False, unfit, row)


def test_a_table_fits_80_columns():
    long = ".".join(["a_long_name"] * 12)
    rows = tuple(Row(f"{long}.{i}", "Conv3d", (11,) * 3, (101,) * 3, 10**5, 10**9, 4) for i in "ab")
    table = str(Untying(rows, ((long, "its weight is computed (parametrization); remove that"),)))
    assert max(map(len, table.splitlines())) <= 80
    assert "long_name.a " in table and "long_name.b " in table
    assert table.endswith("(its weight is computed\n  (parametrization); remove that)")


def test_two_sizes_are_named():
    with pytest.raises(ArgumentError, match=r"'stem', which is called on \(4, 4\) and \(8, 8\)"):
        planned(THERE[:1], {"stem": [(8, 8), (4, 4)]}, False, lambda _: None, row)


def test_tolerances():
    assert tolerance_of(None) is None and tolerance_of(0) == 0.0
    for wrong in (-1, float("nan"), "1", True):
        with pytest.raises(ArgumentError, match="tolerance: expected a number of at least 0"):
            tolerance_of(wrong)
    require_same("kernel", 1e-3, 1e-3)
    require_same("kernel", float("nan"), None)
    with pytest.raises(ArgumentError, match=r"differ by up to 0.002"):
        require_same("kernel", 2e-3, 1e-3)
    with pytest.raises(ArgumentError, match="not finite"):
        require_same("kernel", float("nan"), 1e-3)
    assert strength_of(np.float32(0.5)) == 0.5 and tolerance_of(np.float32(0.5)) == 0.5
    for wrong in (0, 1.5, True, "1"):
        with pytest.raises(ArgumentError, match="strength: "):
            strength_of(wrong)


def test_an_error_names_the_layer():
    class Layer:
        def to_conv(self, tolerance):
            require_same("kernel", 1.0, tolerance)
            return "a convolution"

    assert tied("a.b", Layer(), None) == "a convolution"
    with pytest.raises(ArgumentError, match="a.b.kernel: "):
        tied("a.b", Layer(), 0.0)


@pytest.mark.parametrize("example", [None, "x", b"x", 3, 2.5, True])
def test_an_example_that_no_network_takes(example):
    with pytest.raises(ArgumentTypeError, match="example_input: expected an array, a tuple"):
        arguments_of(example)


def test_an_example_is_one_argument_several_or_named_ones():
    array = np.ones(2)
    assert arguments_of(array) == ((array,), {})
    assert arguments_of((array, 2)) == arguments_of([array, 2]) == ((array, 2), {})
    assert arguments_of({"x": array}) == ((), {"x": array})
