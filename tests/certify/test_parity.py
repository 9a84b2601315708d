"""`lcmulti parity`: on all cases, every backend is within its bound and trains to the same."""

import json
import math

import numpy as np
import pytest
from strangers import backend_entry, implementation_entry, plugin_of

from lcmulti import errors
from lcmulti.conformance import cases, digits, inputs, parity
from lcmulti.conformance.calls import BackendRunner
from lcmulti.conformance.case import Case, Documented
from lcmulti.conformance.report import Curve
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
    lacks = BackendRunner(backend).lacks(np.dtype(dtype))
    assert [skip.backend for skip in report.skips] == ([] if lacks is None else [backend])
    assert report.ok == (lacks is None), report.misses


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
    wrong = Documented((None, 8, 63), 1)
    case = Case("doc", "docs", (10, 2), 64, 3, documented=wrong)
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
    assert "over memory=2.0 GiB (--memory)" in skip.reason
    assert not report.ok
    assert report.verdict() == "FAIL: no backend was checked"


def test_a_dtype_a_backend_lacks_is_skipped(install):
    entry = backend_entry(dtypes=("float32",), capabilities=())
    install(stranger=plugin_of([entry], [implementation_entry("strange", "stranger")]))
    report = parity(["stranger"], FEW, "float64", training=False)
    assert report.skips == [("every case", "stranger", "has no float64")]
    assert {record.backend for record in report.records} == {"reference"}
    assert not report.ok  # the reference alone proves nothing about a backend


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
