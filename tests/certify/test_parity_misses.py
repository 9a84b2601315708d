"""`lcmulti parity` finds wrong backends, and its bounds are right."""

import math
import re
import sys

import numpy as np
import pytest
from strangers import backend_entry, implementation_entry, plugin_of

import lcmulti
from lcmulti import cli
from lcmulti.conformance import bounds, cases, inputs, parity
from lcmulti.conformance.calls import Results
from lcmulti.conformance.case import Case
from lcmulti.conformance.report import Curve
from lcmulti.numpy import backend as numpy_backend

# Saboteurs: backends that are wrong in one way each.


class Off(numpy_backend.NumpyBlocked):
    def forward(self, x, kernel, spec, resources):
        y = super().forward(x, kernel, spec, resources)
        y[..., -1, :1] += np.float32(1e-3)
        return y


class WindowOrder(numpy_backend.NumpyBlocked):
    def forward(self, x, kernel, spec, resources):
        shape = kernel.shape
        axes = spec.ndim
        order = (*range(axes), 2 * axes, *range(axes, 2 * axes), 2 * axes + 1)
        return super().forward(x, kernel.transpose(order).reshape(shape), spec, resources)


class HalfArithmetic(numpy_backend.NumpyBlocked):
    def kernel_grad(self, x, dy, spec, resources):
        half = super().kernel_grad(x.astype("f2"), dy.astype("f2"), spec, resources)
        return half.astype(x.dtype)


class Wrong(numpy_backend.NumpyBlocked):
    def input_grad(self, dy, kernel, spec, resources):
        return super().input_grad(dy, kernel, spec, resources).astype("f8")


class Shape(numpy_backend.NumpyBlocked):
    def input_grad(self, dy, kernel, spec, resources):
        return super().input_grad(dy, kernel, spec, resources)[..., :1]


class NotANumber(numpy_backend.NumpyBlocked):
    def forward(self, x, kernel, spec, resources):
        y = super().forward(x, kernel, spec, resources)
        y[-1, ..., -1] = np.nan
        return y


class Broken(numpy_backend.NumpyBlocked):
    def kernel_grad(self, x, dy, spec, resources):
        raise ZeroDivisionError("not today")


class ZeroGradients(numpy_backend.NumpyBackend):
    """Computes zero for every derivative."""

    def vjp(self, function, arrays, cotangent):
        return function(*arrays), tuple(np.zeros_like(array) for array in arrays)


saboteurs = {
    each.__name__: each(numpy_backend.NumpyOps())
    for each in (Off, WindowOrder, HalfArithmetic, Wrong, Shape, NotANumber, Broken)
}
zero_gradients = ZeroGradients()


@pytest.fixture
def sabotage(install, monkeypatch):
    def sabotaged(name):
        monkeypatch.setattr(sys.modules[__name__], "saboteur", saboteurs[name], raising=False)
        entry = implementation_entry("sabotaged", "stranger", load=f"{__name__}:saboteur")
        install(stranger=plugin_of([backend_entry(capabilities=())], [entry]))

    return sabotaged


MISSES = [
    ("Off", "forward", r"forward off by 0.001 .* times its bound"),
    ("WindowOrder", "forward", r"forward off by .* times its bound"),
    ("HalfArithmetic", "kernel_grad", r"kernel_grad off by .* times its bound"),
    ("Wrong", "input_grad", r"expected ndarray .* float32, got ndarray .* float64"),
    ("Shape", "input_grad", r"expected ndarray \(2, 6, 7, 3\) float32, got ndarray \(2, 6, 7, 1\)"),
    ("NotANumber", "forward", r"forward off by inf"),
    ("Broken", "kernel_grad", r"ZeroDivisionError: not today"),
]


@pytest.mark.parametrize(("name", "guilty", "message"), MISSES)
def test_a_saboteur_is_a_miss(sabotage, name, guilty, message):
    sabotage(name)
    report = parity(backends=["stranger"], cases=["window_order_2d"], training=False)
    assert not report.ok
    (miss,) = report.misses
    assert (miss.backend, miss.case) == ("stranger", "window_order_2d")
    assert re.search(message, miss.problem)
    innocent = {name: f for name, f in miss.fractions.items() if name != guilty}
    assert all(fraction <= 1 for fraction in innocent.values())


def test_lost_gradients_are_a_miss(install):
    entry = backend_entry(capabilities=("reverse",), load=f"{__name__}:zero_gradients")
    install(stranger=plugin_of([entry], [implementation_entry("strange", "stranger")]))
    report = parity(backends=["stranger"], cases=["window_order_2d"], training=False)
    (miss,) = report.misses
    assert miss.fractions["forward"] < 1
    assert min(miss.fractions[m] for m in ("input_grad", "kernel_grad", "bias_grad")) > 1e3


def test_a_miss_exits_with_1(sabotage, capsys):
    sabotage("Off")
    argv = ["parity", "--backends", "stranger", "--cases", "window_order_2d", "--no-training"]
    assert cli.main(argv) == 1
    out = capsys.readouterr().out
    assert "MISS    window_order_2d on stranger: forward off by" in out
    assert out.splitlines()[-1].startswith("FAIL: 1 miss in 2 checks")


@pytest.mark.slow
def test_a_saboteur_trains_on_another_curve(sabotage):
    sabotage("WindowOrder")
    report = parity(backends=["stranger"], cases=["batch_0"])
    (miss,) = report.misses
    assert isinstance(miss, Curve)
    assert "times as far" in miss.problem


# Bounds.


def test_the_float32_bound_is_the_documented_one():
    case = cases.select(["window_order_2d"])[0]
    given = inputs.draw(case, "float32")
    expected = bounds.expect(case, given)
    limits = bounds.bounds(case, expected, given.bias, "float32")
    n = 2 * 3 * 3
    documented = (n + 2) * 2.0**-24 * expected.magnitudes.forward
    assert np.allclose(limits.forward, documented, rtol=1e-8)
    magnitude = lcmulti.local_conv(*(np.abs(a).astype(float) for a in given[:3]))
    assert np.allclose(expected.magnitudes.forward, magnitude)


def test_terms_count_what_is_summed():
    case = Case(
        "t", "test", (7, 4), 6, 3, 5, options={"groups": 2, "strides": 2}, bias_shared_axes=(0,)
    )
    assert bounds.terms(case.spec, 5, case.bias_shape) == Results(3 * 2, 2 * 3, 5, 5 * 3)
    repeated = Case(
        "t", "test", (4, 1), 1, 3, options={"padding": ((3, 1),), "padding_mode": "replicate"}
    )
    assert bounds.repeats(repeated.spec) == 4
    assert bounds.terms(repeated.spec, 2, None) == Results(3, 3 * 4, 2, None)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_are_held_to_one_rounding_of_the_sum(dtype):
    pytest.importorskip("ml_dtypes")
    case = cases.select(["no_bias"])[0]
    given = inputs.draw(case, dtype)
    expected = bounds.expect(case, given)
    limit = bounds.bounds(case, expected, None, dtype).kernel_grad
    value = expected.values.kernel_grad
    good = value.astype(given.x.dtype)
    assert bounds.compare(good, value, limit).ok
    # Two units in the last place off is more than one rounding can do.
    assert not bounds.compare(good + 4 * np.spacing(good), value, limit).ok


def test_compare_finds_the_worst_element():
    expected = np.array([[1.0, 2.0], [3.0, 4.0]])
    limit = np.full((2, 2), 0.5)
    got = expected + np.array([[0.0, 0.1], [-1.0, 0.2]])
    assert bounds.compare(got, expected, limit) == (2.0, 1.0, (1, 0))
    got[0, 0] = np.nan
    assert bounds.compare(got, expected, limit).fraction == math.inf
    assert bounds.compare(expected, expected, np.zeros((2, 2))).ok
    assert not bounds.compare(expected + 1e-9, expected, np.zeros((2, 2))).ok
    assert bounds.compare(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, 2))).ok
