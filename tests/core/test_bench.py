"""`lcmulti bench`: what it measures, and what it records instead of a time."""

import dataclasses
import sys

import pytest
from helpers_bench import QUICK, TINY, quick_machine  # noqa: F401 - the last is a fixture

import lcmulti
from lcmulti import plugins
from lcmulti.bench import Interrupted, bench, machine, run, workload
from lcmulti.bench.contenders import Contender, ours
from lcmulti.bench.harness import harness
from lcmulti.bench.peers import PEERS, Peer
from lcmulti.bench.workloads import Arrays
from lcmulti.errors import ArgumentError

MEASURE = machine.measure
TILED = workload(lcmulti.LocalConvSpec((12, 1), 3, 4, strides=4, data_format="channels_last"), 4)


@pytest.fixture
def peers(monkeypatch):
    """Replace all peers by those of the test."""

    def replaced(*given):
        monkeypatch.setattr(run, "PEERS", given)

    return replaced


def wrong(arrays):
    """A peer that forgets the weights."""
    return Contender(lambda x, w: 0 * arrays.dy + x.sum(), arrays.x, arrays.kernel, arrays.dy)


def right(arrays):
    return ours(arrays, "numpy", "auto", "channels_last")


def peer(function="right", **facts):
    facts = {"name": "peer", "needs": "numpy", "install": "pip install peer"} | facts
    return Peer(
        backend="numpy", load=f"{__name__}:{function}", data_format="channels_last", **facts
    )


def row_of(report, name):
    (row,) = (each for each in report.rows if each.name == name)
    return row


def test_rows_and_times(install):
    install()
    report = bench([TINY], **QUICK)
    assert [row.name for row in report.rows] == ["blocked", "reference"]
    assert [row.auto for row in report.rows] == [True, False]
    for row in report.rows:
        assert row.problem is None
        assert len(row.times) == 3
        assert row.seconds == sorted(row.times)[1]
        assert report.relative(row) == row.seconds / report.rows[0].seconds


def test_the_roofline_is_of_the_measured_machine():
    spec = TINY.spec
    at_least = max(spec.bytes(4) / 1e9, spec.flops(4) / 1e10)
    assert bench([TINY], **QUICK).rows[0].roofline == at_least
    assert bench([TINY], mode="training", **QUICK).rows[0].roofline == 3 * at_least


def test_machine_is_measured():
    assert 1e8 < machine.bandwidth(1, elements=1 << 20) < 1e13
    assert 1e7 < machine.rate("float32", n=128) < 1e15
    assert machine.available_memory() > 2**20


def test_memory_is_that_of_the_container(monkeypatch, tmp_path):
    names = ("memory.max", "memory.current", "inactive_file")
    monkeypatch.setattr(machine, "CGROUPS", ((tmp_path, *names),))
    whole = machine.available_memory()

    def told(most, held, files):
        for name, value in zip(("memory.max", "memory.current"), (most, held), strict=True):
            (tmp_path / name).write_text(f"{value}\n")
        (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {files}\n")
        return machine.available_memory()

    assert told("max", 2**20, 0) > whole / 2
    assert told(3 * 2**20, 2**20, 0) == 2 * 2**20
    assert told(3 * 2**20, 2**20, 2**19) == 5 * 2**19
    assert told(2**20, 2**30, 0) == 0


def refusals(spec, batch, backend):
    """Return the problem that a row has for each implementation that cannot compute the call."""
    found = lcmulti.explain(spec, batch=batch, dtype="float32", backend=backend, device="cpu")
    return {v.name: f"not run: {v.reason}" for v in found.verdicts if v.reason is not None}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["forward", "training"])
@pytest.mark.parametrize("work", [TINY, TILED], ids=["2d", "tiled"])
def test_every_backend_and_peer_computes_the_same(backend, mode, work):
    report = bench([work], backends=[backend], mode=mode, repeat=1)
    expected = {p.name for p in PEERS if p.backend == backend and p.applies(work.spec)}
    assert {row.name for row in report.of("own", "peer")} == expected
    assert {row.kind for row in report.rows} >= {"ours", "variant"}
    missing = {p.name for p in PEERS if not p.is_installed()}
    told = refusals(work.spec, work.batch, backend)
    for row in report.rows:
        if row.kind == "peer" and row.name in missing:
            assert row.problem.startswith("not installed")
        elif row.kind != "peer":
            assert row.problem == (told.get(row.name) if row.kind == "ours" else None)
        assert bool(row.times) != (row.problem or "").startswith("not "), (row.name, row.problem)


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_dtypes(dtype):
    report = bench([TINY], dtype=dtype, **QUICK)
    assert {row.problem for row in report.rows} == {None}


def test_wrong_outputs_are_not_timed(peers):
    peers(peer("wrong"))
    row = row_of(bench([TINY], **QUICK), "peer")
    assert row.problem.startswith("wrong outputs: off by ")
    assert row.times == []


def test_a_peer_that_is_missing_is_named(peers):
    peers(peer(needs="no_such_package"))
    row = row_of(bench([TINY], **QUICK), "peer")
    assert row.problem == "not installed; install it with: pip install peer"


def test_a_peer_that_fails_leaves_the_others(peers):
    peers(peer("no_such_function"), peer(name="right"))
    report = bench([TINY], **QUICK)
    assert row_of(report, "peer").problem.startswith("failed: AttributeError")
    assert len(row_of(report, "right").times) == 3


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9. GiB for an array"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"
        ),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 40000000000 bytes."),
        RuntimeError("OOM when allocating tensor with shape[9000,9000,9000]"),
    ],
    ids=str,
)
def test_out_of_memory_is_recorded_as_that(peers, monkeypatch, error):
    def full(arrays):
        raise error

    monkeypatch.setattr(sys.modules[__name__], "full", full, raising=False)
    peers(peer("full"))
    row = row_of(bench([TINY], **QUICK), "peer")
    assert (row.problem, row.times) == ("not run: out of memory", [])


@pytest.mark.parametrize("mode", ["training", pytest.param("forward", marks=pytest.mark.slow)])
def test_a_padding_mode_is_part_of_what_is_timed(backend, mode, peers):
    """It is also part of what is compared with the reference; peers pad with zeros."""
    peers(dataclasses.replace(peer(), backend=backend))
    spec = dataclasses.replace(TINY.spec, padding_mode="reflect", padding=((2, 1), (0, 3)))
    report = bench([workload(spec, 3)], backends=[backend], repeat=1, mode=mode)
    assert report.rows[-1].problem == "not run: pads with zeros alone"
    told = refusals(spec, 3, backend)
    for row in report.of("own", "ours", "variant"):
        assert row.problem == (told.get(row.name) if row.kind == "ours" else None)
        assert bool(row.times) == (row.problem is None), (row.name, row.problem)
    assert Arrays(workload(spec, 3), "float32").x.shape == (3, 6, 5, 2)


def test_memory(peers):
    peers(peer(holds=lambda spec, batch: 10**9))
    over = "not run: needs 3.7 GiB, over memory=953.7 MiB (--memory)"
    report = bench([TINY], memory="1GB", **QUICK)
    assert row_of(report, "peer").problem == over
    assert row_of(report, "blocked").times
    peers(peer(gradient_holds=lambda spec, batch: 10**9))
    assert row_of(bench([TINY], memory="1GB", mode="forward", **QUICK), "peer").times
    report = bench([TINY], memory="1GB", mode="training", **QUICK)
    assert row_of(report, "peer").problem == over
    (row, _) = bench([TINY], memory=100, **QUICK).rows
    assert row.problem.endswith(", over memory=100 B (--memory)")


def test_a_call_over_the_limit_is_timed_once():
    (row, *_) = bench([TINY], limit=1e-9, **QUICK).rows
    assert row.problem == "over 0 s, timed once"
    assert row.times == [row.first]


@pytest.mark.slow
def test_a_slow_peer_is_tried_apart(peers):
    known = next(p for p in PEERS if p.name == "unfold+einsum")
    pytest.importorskip("torch")
    slow = dataclasses.replace(known, is_slow=lambda spec, batch: True)
    peers(slow)
    few = QUICK | {"backends": ["torch"], "implementations": ["auto"]}
    row = row_of(bench([TINY], limit=0.01, **few), "unfold+einsum")
    assert row.problem == "over 0 s"
    assert row.times == []
    assert row_of(bench([TINY], **few), "unfold+einsum").problem is None


def test_variants():
    report = bench([TINY], backends=["numpy"], repeat=1)
    varied = [(row.data_format, row.batch) for row in report.of("own", "variant")]
    assert varied == [("channels_first", 4), ("channels_last", 2), ("channels_last", 8)]


def test_an_interrupt_leaves_what_was_measured(install):
    install()

    def watch(report, text):
        if text.endswith("run 2 of 3"):
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        bench([TINY], watch=watch, **QUICK)
    report = caught.value.report
    assert report.interrupted
    assert [len(row.times) for row in report.rows] == [1, 1]


def test_an_interrupt_while_preparing_leaves_first_times(install):
    install()

    def watch(report, text):
        if text == "own: numpy reference":
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        bench([TINY], watch=watch, **QUICK)
    assert [len(row.times) for row in caught.value.report.rows] == [1, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workloads": ["deepface"]}, "workload: expected one of keras_docstring_1"),
        ({"mode": "backward"}, "mode: expected one of 'forward', 'training', got 'backward'"),
        ({"dtype": "int8"}, "dtype: expected one of"),
        ({"backends": ["caffe"]}, "backends: expected one of"),
        ({"backends": []}, "backends: expected at least one name"),
        ({"implementations": ["fast"]}, "implementations: expected one of 'auto'"),
        ({"peers": ["caffe"]}, "peers: expected True, False or names among unfold+einsum"),
        ({"repeat": 0}, "repeat: expected a positive integer, got 0"),
        ({"limit": 0}, "limit: expected a positive number of seconds, got 0"),
        ({"batch": 0}, "batch: expected a positive integer, got 0"),
        ({"memory": "much"}, "memory: expected bytes"),
        ({"workloads": [TINY, TINY]}, "workloads: expected layers with different names"),
    ],
    ids=str,
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ArgumentError) as caught:
        bench(**arguments)
    assert str(caught.value).startswith(message)


def test_arrays_are_made_once():
    arrays = Arrays(TINY, "float32")
    assert arrays.oriented("x", "channels_first") is arrays.oriented("x", "channels_first")
    assert arrays.oriented("x", "channels_first").shape == (4, 2, 6, 5)


def test_backends_keep_pytorch_before_tensorflow():
    order, _ = run._backends(None, "cpu")
    assert set(order) <= set(plugins.registry().backends)
    if {"torch", "tensorflow"} <= set(order):
        assert order.index("torch") < order.index("tensorflow")


def test_a_device_that_is_missing_is_named():
    with pytest.raises(ArgumentError, match=r"device: expected .*'numpy' has \(cpu\), got 'gpu'"):
        bench([TINY], device="gpu", **QUICK)
    with pytest.raises(ArgumentError, match="device: expected one of 'cpu', 'gpu', got 'tpu'"):
        bench([TINY], device="tpu", **QUICK)


@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
def test_on_a_gpu(backend, monkeypatch):
    pytest.importorskip(backend)
    try:
        plugins.placement(backend, "gpu")
    except ArgumentError:
        pytest.skip("no GPU")
    monkeypatch.setattr(machine, "measure", MEASURE)
    report = bench([TINY], backends=[backend], device="gpu", mode="training", repeat=3)
    assert report.device == report.machine.device == "gpu"
    assert report.machine.name == report.machine.processor
    assert report.machine.bandwidth > 1e10
    ours = [row for row in report.of("own", "ours") if row.seconds]
    assert ours
    assert all(row.problem is None for row in ours)


def test_steps_on_a_gpu_are_waited_for(monkeypatch):
    torch = pytest.importorskip("torch")
    waited = []
    monkeypatch.setattr(plugins, "placement", lambda backend, device: lambda: torch.device("cpu"))
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: waited.append(1))
    for device, times in (("cpu", 0), ("gpu", 2)):
        waited.clear()
        step = harness("torch", device).step(
            ours(Arrays(TINY, "float32"), "torch", "auto", "channels_last"), training=False
        )
        step()
        step()
        assert len(waited) == times
