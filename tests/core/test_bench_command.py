"""`lcmulti bench` as a command: what it advises and writes. Also the benchmarks that asv runs."""

import dataclasses
import importlib
import json
import math
import re
from pathlib import Path

import pytest
from helpers_bench import MACHINE, QUICK, TINY, quick_machine  # noqa: F401 - the last is a fixture

from lcmulti import bench as package
from lcmulti import plugins
from lcmulti.bench import Interrupted, Report, Row, bench, fresh
from lcmulti.bench.advice import advice
from lcmulti.bench.peers import PEERS
from lcmulti.bench.workloads import cases
from lcmulti.errors import MissingBackendError
from lcmulti.plugins import collecting


def made(*rows):
    return Report(MACHINE, "forward", "float32", [TINY], list(rows))


def timed(name, seconds, backend="numpy", kind="ours", **facts):
    facts = {"data_format": "channels_last", "batch": 4, "roofline": 1e-3} | facts
    return Row("own", backend, name, kind, times=[seconds] * 3, **facts)


def test_advice_names_what_is_faster():
    auto = timed("blocked", 0.008, auto=True)
    said = advice(
        made(
            auto,
            timed("native", 0.004),
            timed("blocked", 0.002, kind="variant", data_format="channels_first"),
            timed("blocked", 0.008, kind="variant", batch=8),
            timed("blocked", 0.016, backend="torch", auto=True),
        )
    )
    assert 'implementation="native" is 2.0 times as fast as blocked' in said[0]
    assert "channels_first is 4.0 times as fast" in said[1]
    assert "a batch of 8 is 2.0 times as fast a sample" in said[2]
    assert "numpy is the fastest backend here, 2.0 times as fast as torch" in said[3]


def test_advice_says_the_line_that_keeps_memory():
    auto = timed("blocked", 0.008, auto=True)
    auto.kept = {fresh.AS_IT_IS: 0.009, "glibc": 0.004, "jemalloc": 0.005}
    said = advice(made(auto))
    assert "2.2 times as fast where glibc keeps freed memory" in said[0]
    assert "MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=" in said[0]
    auto.kept["glibc"] = auto.kept["jemalloc"] = 0.0085
    assert advice(made(auto)) == []


@pytest.mark.skipif(not fresh.allocators(), reason="no allocator here is told by variables")
def test_fresh_memory_is_measured_in_processes_that_are_told(monkeypatch):
    # The allocator keeps the memory of small results, so there is nothing to measure.
    assert fresh.measured(TINY, "numpy", "float32", True, 60) == {}
    monkeypatch.setattr(fresh, "LARGE", fresh.results_of(TINY, "float32", True))
    monkeypatch.setattr(fresh, "allocators", lambda: {"glibc": fresh.GLIBC, "none": {"LC": "1"}})
    told, run = [], fresh.subprocess.run

    def spied(*arguments, env, **named):
        told.append({name: env.get(name) for name in (*fresh.GLIBC, "LC")})
        return run(*arguments, env=env, **named)

    monkeypatch.setattr(fresh.subprocess, "run", spied)
    found = fresh.measured(TINY, "numpy", "float32", True, 60)
    assert list(found) == [fresh.AS_IT_IS, "glibc", "none"]
    assert all(0 < seconds < 1 for seconds in found.values())
    nothing = dict.fromkeys((*fresh.GLIBC, "LC"))
    assert told == [nothing, nothing | fresh.GLIBC, nothing | {"LC": "1"}]


def test_advice_says_nothing_within_the_spread():
    assert advice(made(timed("blocked", 0.008, auto=True), timed("native", 0.0075))) == []
    noisy = timed("native", 0.004)
    noisy.times = [0.001, 0.004, 0.02]
    assert advice(made(timed("blocked", 0.008, auto=True), noisy)) == []


def test_advice_at_the_roofline():
    (line, *_) = advice(made(timed("blocked", 0.0012, auto=True)))
    assert "at 1.2 times the roofline, there is little left to gain" in line


def test_kernels_for_cpus_are_not_advised_on_a_gpu(monkeypatch):
    monkeypatch.setattr("lcmulti.bench.advice.find_spec", lambda name: None)
    report = made(timed("blocked", 0.0012, auto=True))
    assert any("C++" in line for line in advice(report))
    report.device = "gpu"
    assert advice(report)
    assert not any("C++" in line for line in advice(report))


def test_json_has_everything():
    report = bench([TINY], **QUICK)
    found = json.loads(report.to_json())
    assert found["machine"]["bandwidth"] == 1e9
    assert found["workloads"][0]["spec"]["kernel_size"] == [3, 2]
    assert [row["times"] for row in found["rows"]] == [row.times for row in report.rows]
    assert math.isclose(found["rows"][1]["relative"], report.relative(report.rows[1]))


OWN = ["--input", "6x5x2", "--kernel", "3", "--filters", "3", "--batch", "4"]
FEW = ["--backends", "numpy", "--repeat", "3"]


def test_command_line(lcm, tmp_path, install):
    install()
    plotted = pytest.importorskip("matplotlib") is not None
    for suffix, magic in ((".png", b"\x89PNG"), (".svg", b"<?xml")):
        files = ["--json", tmp_path / "a.json", "--plot", tmp_path / f"a{suffix}"]
        result = lcm("bench", "keras_10084_1d", *OWN, *FEW, *files)
        assert result.code == 0, result.err
        assert max(map(len, result.out.splitlines())) <= 80
        assert "blocked*" in result.out
        assert "own, batch 4, forward, float32" in result.out
        assert plotted
        assert (tmp_path / f"a{suffix}").read_bytes().startswith(magic)
    found = json.loads((tmp_path / "a.json").read_text())
    assert {row["workload"] for row in found["rows"]} == {"keras_10084_1d", "own"}


def test_command_line_interrupted(lcm, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise Interrupted(dataclasses.replace(bench([TINY], **QUICK), interrupted=True))

    monkeypatch.setattr(package, "bench", interrupted)
    result = lcm("bench", "--json", tmp_path / "a.json")
    assert result.code == 130
    assert "interrupted: this is what was measured until then" in result.out
    assert json.loads((tmp_path / "a.json").read_text())["interrupted"] is True


def test_a_backend_that_is_missing_is_named(monkeypatch, lcm):
    def load(name, real=plugins.load_backend):
        if name != "numpy":
            raise MissingBackendError(f"backend {name!r} needs a package")
        return real(name)

    for module in (plugins, collecting):
        monkeypatch.setattr(module, "load_backend", load)
    absent = set(plugins.registry().backends) - {"numpy"}
    result = lcm("bench", *OWN, "--repeat", "1", "--no-variants")
    assert result.code == 0
    for name in absent:
        assert f"backend {name!r} needs a package" in result.out
    with pytest.raises(MissingBackendError):
        bench([TINY], backends=["jax"])


def test_list(lcm):
    result = lcm("bench", "--list")
    assert all(name in result.out for name in cases())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["deepface"], "workload: expected one of"),
        (["--input", "6x5x2"], "--kernel: expected a value: a layer of your own has --input"),
        (["--input", "2x2x2", "--kernel", "9", "--filters", "1"], "kernel_size: expected a window"),
        (["--plot", "a.pdf"], "--plot: expected a file ending in .png or .svg, got 'a.pdf'"),
        (["--json", "no/such/a.json"], "--json: expected a file in a folder that exists"),
        (["--limit", "nan"], "limit: expected a positive number of seconds, got nan"),
        (["--dtype", "complex64"], "dtype: expected one of"),
    ],
    ids=str,
)
def test_command_line_errors_are_one_line(lcm, arguments, message):
    result = lcm("bench", *arguments)
    assert result.code == 2
    assert result.err.startswith(f"lcmulti: {message}")
    assert result.err.count("\n") == 1
    assert result.out == ""


@pytest.fixture
def asv(monkeypatch):
    """Import a module of the asv benchmarks."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "asv_benches")
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def test_asv_knows_every_workload_implementation_and_peer(asv):
    common = asv("common")
    assert tuple(cases()) == common.WORKLOADS
    assert set(common.PEERS) <= {p.name for p in PEERS}
    own = {(e.backend, e.name) for e in plugins.registry().implementations.values()}
    ways = {tuple(way.split()) for way in common.WAYS}
    # No workload shares its kernel, as a convolution does. NumPy's `blocked` is what `auto` takes.
    left_out = {(b, "conv") for b in common.BACKENDS} | {("numpy", "blocked")}
    assert {each for each in own if each[0] in common.BACKENDS} - left_out <= ways


SMALL = ("numpy auto", "numpy", "training", "unfold+einsum", "keras_docstring_1d")
"""The benchmarks' parameters are set to the first of these values that they have."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compute", "overhead", "ratios"])
def test_asv_benchmarks_run(asv, name):
    module = asv(name)
    for kind in (each for each in vars(module).values() if isinstance(each, type)):
        params = getattr(kind, "params", ())
        each_axis = (
            params if params and not isinstance(params[0], str) else (params,) * bool(params)
        )
        chosen = [next(value for value in SMALL if value in values) for values in each_axis]
        benchmark = kind()
        try:
            benchmark.setup(*chosen)
        except NotImplementedError:
            continue  # its framework is absent
        for method in (each for each in dir(kind) if each.startswith(("time_", "peak", "track_"))):
            measured = getattr(benchmark, method)(*chosen)
            assert measured > 0 if method.startswith("track_") else measured is None


def test_asv_skips_a_peer_without_such_a_layer(asv):
    with pytest.raises(NotImplementedError, match="forum recipe exists in 2D alone|not installed"):
        asv("ratios").OverPeer().setup("forum recipe", "keras_docstring_1d")


def test_asv_finds_every_benchmark():
    """asv would silently leave out a method whose name lacks a prefix, such as ``time``."""
    kinds = "time_", "timeraw_", "peakmem_", "track_"
    folder = Path(__file__).parents[2] / "asv_benches" / "benchmarks"
    for path in sorted(folder.glob("[a-z]*.py")):
        for name in re.findall(r"^    def (\w+)", path.read_text("utf-8"), re.MULTILINE):
            assert name == "setup" or name.startswith(kinds), (path.name, name)
