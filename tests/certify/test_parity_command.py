"""`lcmulti parity`: the backends and files it takes, what it writes, and the command."""

import json
import math
import sys
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from strangers import backend_entry, implementation_entry, plugin_of

from lcmulti import cli, errors
from lcmulti.conformance import cases, html, inputs, parity
from lcmulti.conformance.calls import BackendRunner
from lcmulti.conformance.report import Curve, Record, Report
from lcmulti.errors import Interrupted

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
        ("absent", "not installed; install it with: pip install absent")
    ]


def test_a_backend_that_cannot_be_loaded_is_a_miss(install):
    install(stranger=plugin_of([backend_entry(load="no_such_module:backend")]))
    report = parity(cases=["batch_0"], training=False)
    (miss,) = report.misses
    assert (miss.case, miss.backend) == ("import", "stranger")
    assert "could not be loaded" in miss.problem


def test_a_backend_without_reverse_mode_is_run_through_its_maps(install):
    entry = backend_entry(capabilities=(), load="lcmulti.numpy.backend:backend")
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


def test_memory_that_runs_out_is_one_sentence(monkeypatch, capsys):
    def full(*_):
        raise MemoryError("Unable to allocate 9 GiB")

    module = sys.modules["lcmulti.conformance.parity"]
    monkeypatch.setattr(module, "draw", full)
    assert cli.main(["parity", "--backends", "numpy", "--cases", "batch_0"]) == 2
    told = capsys.readouterr().err
    assert told == (
        "lcmulti: memory: expected a limit that skips what does not fit here, as --memory 256MiB "
        "does, got 2,147,483,648 bytes, and none left for case 'batch_0' (Unable to allocate "
        "9 GiB)\n"
    )
    monkeypatch.setattr(module, "select", full)
    assert cli.main(["parity", "--backends", "numpy"]) == 2
    assert capsys.readouterr().err == "lcmulti: out of memory (Unable to allocate 9 GiB)\n"


def test_progress_counts_to_the_end():
    seen = []
    parity(
        backends=["numpy"], cases=["batch_1", "neurite_3d"], progress=seen.append, training=False
    )
    assert [p.done for p in seen] == [0, 2, 3]
    assert {p.total for p in seen} == {4}


def test_a_file_that_cannot_be_written_is_one_line(capsys):
    argv = ["parity", "--backends", "numpy", "--cases", "batch_0", "--no-training"]
    assert cli.main([*argv, "--json", "/proc/report.json"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "/proc/report.json" in line
