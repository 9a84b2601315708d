"""`lcmulti parity`: what it computes, that it can fail, and what it writes."""

import json
import math
import re
import sys
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from strangers import backend_entry, implementation_entry, plugin_of

import lcmulti
from lcmulti import cli, errors, numpy_backend
from lcmulti.conformance import bounds, cases, digits, html, inputs, parity
from lcmulti.conformance.calls import BackendRunner, Results
from lcmulti.conformance.parity import Interrupted
from lcmulti.conformance.report import Curve, Record, Report
from lcmulti.conformance.training import Run, Yardstick, judged

FEW = ["window_order_2d", "reflect", "channels_first_2d"]


def test_numpy_is_within_the_bound():
    report = parity(backends=["numpy"], cases=["traps", "keras_1d*"], training=False)
    assert report.ok, report.misses
    assert set(report.backends) == {"reference", "numpy"}
    assert {r.implementation for r in report.records if r.backend == "numpy"} == {"blocked"}
    assert max(r.fraction for r in report.records) > 0  # something was measured


@pytest.mark.parametrize("dtype", ["float16", "float64", "complex64", "complex128"])
def test_every_backend_is_within_the_bound_in(dtype, backend):
    report = parity(backends=[backend], cases=FEW, dtype=dtype, training=False)
    assert report.ok or report.skips, report.misses


def test_every_backend_is_within_the_bound(backend):
    report = parity(backends=[backend], cases=FEW, training=False)
    assert report.ok, report.misses


@pytest.mark.slow
def test_every_backend_learns_the_digits_alike(backend):
    report = parity(backends=[backend], cases=["batch_0"])
    assert report.ok, report.misses
    reference, curve = report.training
    assert curve.accuracy > 0.9
    assert np.allclose(curve.losses, reference.losses, rtol=1e-4)
    assert curve.losses[-1] < curve.losses[0] / 3


def test_runs_are_the_same_twice():
    first, second = (parity(backends=["numpy"], cases=FEW, training=False) for _ in range(2))
    assert first.to_json() == second.to_json()
    case = cases.select(["reflect"])[0]
    assert (inputs.draw(case, "float32").x == inputs.draw(case, "float32").x).all()


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
    """Differentiates, but forgets to."""

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
    case = cases.Case(
        "t", "test", (7, 4), 6, 3, 5, options={"groups": 2, "strides": 2}, bias_shared_axes=(0,)
    )
    assert bounds.terms(case.spec, 5, case.bias_shape) == Results(3 * 2, 2 * 3, 5, 5 * 3)
    repeated = cases.Case(
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


# Cases.


def test_keras_documentation_comes_out_as_documented():
    shapes = {c.name: (None, *c.spec.output_shape) for c in cases.select(["docs"])}
    assert shapes == {
        "keras_1d_layer1": (None, 8, 64),
        "keras_1d_layer2": (None, 6, 32),
        "keras_2d_layer1": (None, 30, 30, 64),
        "keras_2d_layer2": (None, 28, 28, 32),
    }


def test_another_shape_than_documented_is_a_miss(monkeypatch):
    wrong = cases.Documented((None, 8, 63), 1)
    case = cases.Case("doc", "docs", (10, 2), 64, 3, documented=wrong)
    monkeypatch.setattr(cases, "all_cases", lambda: (case,))
    report = parity(backends=["numpy"], training=False)
    assert not report.ok
    assert "documented output shape (None, 8, 63), got (None, 8, 64)" in report.misses[0].problem
    assert "documented parameters 1" in report.misses[0].problem


def test_workloads_agree_with_their_own_figures():
    text = (digits.resources.files("lcmulti.conformance") / "data/workloads.json").read_text()
    rows = {row["name"]: row for row in json.loads(text)}
    for case in cases.select(["workloads"]):
        row = rows[case.name]
        assert list(case.spec.output_size) == row["output_size"]
        assert math.prod(case.spec.kernel_shape) == row["kernel_parameters"]
        assert case.spec.flops(case.batch) == row["flops_forward"]


def test_traps_cover_what_they_claim():
    specs = [case.spec for case in cases.select(["traps"])]
    assert {spec.ndim for spec in specs} == {1, 2, 3, 4}
    assert {s.padding_mode for s in specs} == {"zeros", "reflect", "replicate", "circular"}
    assert {s.data_format for s in specs} == {"channels_first", "channels_last"}
    assert {case.batch for case in cases.select(["traps"])} >= {0, 1, 2}
    assert any(s.is_disjoint for s in specs)
    assert any(s.is_convolution and math.prod(s.output_size) > 1 for s in specs)
    assert any(s.groups == s.in_channels > 1 for s in specs)
    assert any(low != high for s in specs for low, high in s.padding)
    assert any(s.kernel_size == s.input_size for s in specs)
    assert any(st > k for s in specs for st, k in zip(s.strides, s.kernel_size, strict=True))


def test_cases_are_chosen_by_name_group_and_glob():
    assert [c.name for c in cases.select(["same_3d", "batch_*"])] == [
        "same_3d", "batch_0", "batch_1", "batch_17",
    ]  # fmt: skip
    with pytest.raises(errors.ArgumentError, match=r"^cases: expected a group .*same_3d.*'nope'"):
        cases.select(["docs", "nope"])


def test_a_case_over_the_memory_limit_is_skipped_and_said():
    report = parity(backends=["numpy"], cases=["neurite_3d"], training=False)
    (skip,) = report.skips
    assert skip.case == "neurite_3d"
    assert "over the memory limit of 2.0 GiB" in skip.reason
    assert not report.ok
    assert report.verdict() == "FAIL: no backend was checked"


def test_a_dtype_a_backend_lacks_is_skipped(install):
    entry = backend_entry(dtypes=("float32",), capabilities=())
    install(stranger=plugin_of([entry], [implementation_entry("strange", "stranger")]))
    report = parity(["stranger"], FEW, "float64", training=False)
    assert report.skips == [("every case", "stranger", "has no float64")]
    assert {record.backend for record in report.records} == {"reference"}
    assert not report.ok  # the reference alone proves nothing about a backend


# Backends.


def test_unknown_and_absent_backends(install):
    absent = backend_entry("absent", package="no_such_package")
    install(stranger=plugin_of([absent]))
    with pytest.raises(errors.ArgumentError, match=r"'absent', 'numpy'|'numpy', 'absent'"):
        parity(backends=["nope"])
    with pytest.raises(errors.MissingBackendError, match="pip install absent"):
        parity(backends=["absent"])
    report = parity(cases=["batch_0"], training=False)
    assert report.ok
    assert [(a.backend, a.reason) for a in report.absent] == [
        ("absent", "not installed; pip install absent")
    ]


def test_a_backend_that_cannot_be_loaded_is_a_miss(install):
    install(stranger=plugin_of([backend_entry(load="no_such_module:backend")]))
    report = parity(cases=["batch_0"], training=False)
    (miss,) = report.misses
    assert (miss.case, miss.backend) == ("import", "stranger")
    assert "could not be loaded" in miss.problem


def test_a_backend_without_reverse_mode_is_run_through_its_maps(install):
    entry = backend_entry(capabilities=(), load="lcmulti.numpy_backend:backend")
    install(stranger=plugin_of([entry], [implementation_entry("strange", "stranger")]))
    case = cases.select(["reflect_first_strided"])[0]
    given = inputs.draw(case, "float64")
    got = BackendRunner("stranger").results(case, given)
    for ours, theirs in zip(BackendRunner("numpy").results(case, given), got, strict=True):
        assert np.allclose(ours, theirs)


# A user's own input.


def test_a_file_is_a_case(tmp_path, rng):
    path = tmp_path / "mine.npy"
    np.save(path, rng.integers(0, 255, (3, 6, 7, 2)).astype("uint8"))
    report = parity(backends=["numpy"], input=path, training=False)
    assert report.ok
    assert {record.case for record in report.records} == {"input:mine.npy"}
    both = parity(backends=["numpy"], cases=["batch_1"], input=path, training=False)
    assert {record.case for record in both.records} == {"batch_1", "input:mine.npy"}


BAD_FILES = {
    "missing": (None, "mine.npy: No such file"),
    "object": (np.array([{}], dtype=object), "mine.npy: Object arrays cannot be loaded"),
    "text": (np.array([["a"]]), "input: expected numbers that fit float32, got dtype <U1"),
    "complex": (np.ones((2, 4, 1), "complex64"), "numbers that fit float32, got dtype complex64"),
    "rank": (np.ones((4, 4)), r"every spatial axis at least 3.*shape \(4, 4\)"),
    "small": (np.ones((1, 2, 4, 1)), r"every spatial axis at least 3.*shape \(1, 2, 4, 1\)"),
    "nan": (np.full((1, 4, 1), np.nan), "finite numbers as float32, got NaN or Inf"),
    "huge": (np.full((1, 4, 1), 1e300), "finite numbers as float32, got NaN or Inf"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_file_that_cannot_be(tmp_path, kind):
    array, message = BAD_FILES[kind]
    path = tmp_path / "mine.npy"
    if array is not None:
        np.save(path, array, allow_pickle=True)
    with pytest.raises(errors.ArgumentError, match=message) as caught:
        parity(backends=["numpy"], input=path)
    assert caught.value.argument == "input"


@pytest.mark.parametrize("keep", [0, 20, 200])
def test_a_truncated_file(tmp_path, keep):
    path = tmp_path / "mine.npy"
    np.save(path, np.ones((4, 8, 8, 1)))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(errors.ArgumentError, match=r"readable \.npy file"):
        parity(backends=["numpy"], input=path)


# Training.


def test_the_digits_are_what_the_notice_says():
    training, test = digits.load()
    images = np.concatenate([training.images, test.images])
    assert images.shape == (1797, 8, 8, 1)
    assert images.min() == 0
    assert images.max() == 1
    labels = np.concatenate([training.labels, test.labels])
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    notice = (digits.resources.files("lcmulti.conformance") / "data/DIGITS.md").read_text()
    for word in ("Alpaydin", "Kaynak", "10.24432/C50P49", "CC BY 4.0", "changed"):
        assert word in notice


def test_curves_are_held_to_what_twins_reach():
    exact = Run([3.0, 2.0, 1.0], 0.95)
    yardstick = Yardstick.of(exact, [Run([3.1, 2.0, 1.1], 0.9), Run([3.0, 1.8, 1.0], 0.9)])
    assert np.allclose(yardstick.reach, [0.1, 0.2, 0.2])
    assert judged("a", exact, yardstick) == Curve("a", exact.losses, 0.95, 0.0)
    near = judged("b", Run([3.05, 2.1, 1.0], 0.95), yardstick)
    assert near.ok
    assert near.fraction == pytest.approx(0.5)
    assert "step 2" in judged("c", Run([3.0, 2.0, 1.5], 0.95), yardstick).problem
    assert judged("d", Run([math.nan, 2.0, 1.0], 0.95), yardstick).fraction == math.inf
    assert judged("e", exact._replace(accuracy=0.89), yardstick).problem == (
        "test accuracy 89.0% is under 90%"
    )


# What is written.


@pytest.fixture
def report():
    records = [
        Record("one", "traps", "numpy", "blocked", {"forward": 0.25}, "forward off by 1e-8"),
        Record("two", "traps", "<b>", "", {}, "", "Error: <script>&\x07"),
        Record("six", "traps", "numpy", "x", {"forward": math.inf}, "forward off by inf", "bad"),
    ]
    curves = [Curve("numpy", [2.0, 1.0], 0.95, 0.1), Curve("<b>", [], 0.0, math.inf, "no")]
    return Report("float32", {"lcmulti": "0"}, records, training=curves)


def test_json_is_strict(report):
    def refuse(constant):
        raise AssertionError(constant)

    content = json.loads(report.to_json(), parse_constant=refuse)
    assert content["ok"] is False
    assert [record["ok"] for record in content["records"]] == [True, False, False]
    assert content["records"][2]["fractions"]["forward"] is None
    assert content["training"][0]["losses"] == [2.0, 1.0]


def test_junit_counts(report):
    suite = ET.fromstring(report.to_junit())
    assert (suite.get("tests"), suite.get("failures")) == ("5", "3")
    assert len(suite.findall("testcase/failure")) == 3


def test_html_escapes_and_plots(report):
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    page = html.render(report)
    assert page.count("data:image/svg+xml;base64,") == 2
    assert "<script>" not in page
    assert "Error: &lt;script&gt;" in page
    assert html.render(Report("float32")).count("<img") == 0


def test_html_without_its_extra(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert cli.main(["parity", "--html", str(tmp_path / "r.html")]) == 2
    assert 'pip install "lcmulti[report]"' in capsys.readouterr().err


# The command.


def test_the_command_writes_what_it_is_asked_for(tmp_path, capsys, monkeypatch):
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("COLUMNS", "80")
    files = {kind: tmp_path / f"report.{kind}" for kind in ("json", "junit", "html")}
    argv = ["parity", "--backends", "numpy", "--cases", "batch_*,keras_1d*", "--no-training"]
    for kind, path in files.items():
        argv += [f"--{kind}", str(path)]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "PASS: " in out
    assert json.loads(files["json"].read_text())["ok"]
    assert ET.parse(files["junit"]).getroot().get("failures") == "0"
    assert files["html"].read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--backends", "nope"], "backends: expected one of"),
        (["--cases", "nope"], "cases: expected a group"),
        (["--dtype", "int8"], "dtype: expected one of 'float16'"),
        (["--memory", "much"], "memory: expected bytes, or a size"),
        (["--input", "nowhere.npy"], "input: expected a readable .npy file"),
        (["--json", "nowhere/report.json"], "--json: expected a file in a folder that exists"),
    ],
)
def test_a_wrong_call_exits_with_2(argv, message, capsys):
    assert cli.main(["parity", *argv]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert not captured.out


def test_cases_are_listed(capsys):
    assert cli.main(["parity", "--list-cases", "--cases", "docs"]) == 0
    assert "keras_2d_layer2" in capsys.readouterr().out


def test_an_interrupt_keeps_what_was_done(monkeypatch, capsys, tmp_path):
    def interrupt(self, case, given):
        if case.name == "batch_1":
            raise KeyboardInterrupt
        return results(self, case, given)

    results = BackendRunner.results
    monkeypatch.setattr(BackendRunner, "results", interrupt)
    with pytest.raises(Interrupted) as caught:
        parity(backends=["numpy"], cases=["batch_*"], training=False)
    assert not caught.value.report.ok
    assert [r.case for r in caught.value.report.records if r.backend == "numpy"] == ["batch_0"]
    path = tmp_path / "report.json"
    argv = ["parity", "--backends", "numpy", "--cases", "batch_*", "--json", str(path)]
    assert cli.main(argv) == 130
    assert "INTERRUPTED after" in capsys.readouterr().out
    assert json.loads(path.read_text())["interrupted"] is True


def test_progress_counts_to_the_end():
    seen = []
    parity(
        backends=["numpy"], cases=["batch_1", "neurite_3d"], progress=seen.append, training=False
    )
    assert [p.done for p in seen] == [0, 2, 3]
    assert {p.total for p in seen} == {4}
