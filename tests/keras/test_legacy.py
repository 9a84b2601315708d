"""Old models on each of Keras' backends: those in ``data``, and those that tf_keras writes."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers_keras import BACKENDS, DRIVERS, NEEDS, needs, run_driver

import lcmulti

DATA = Path(__file__).parents[1] / "data" / "legacy_models"
SAMPLES = sorted(path.name for path in DATA.glob("*.[hk]*"))
NAMES = re.findall(r"@model\ndef (\w+)", (DRIVERS / "write_legacy.py").read_text("utf-8"))
FOR_TWO = ("compiled_for_two", "compiled_for_all", "compiled_for_one")
WRITTEN = [f"{name}.{suffix}" for name in (*NAMES, "compiled", "custom_loss", *FOR_TWO)
           for suffix in ("h5", "keras")]  # fmt: skip
WRITTEN += ["old_fashioned.h5", "old_nested.h5", "by_theano.h5", "big_endian.h5"]
EPSILON = {"float16": 2e-3, "float32": 2e-6, "float64": 1e-12}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("keras"), reason="Keras is not installed"),
]


@pytest.fixture(scope="session")
def samples_on():
    return cached(lambda backend: run_driver("load_legacy.py", backend, DATA))


@pytest.fixture(scope="session")
def written_on(written):
    return cached(lambda backend: run_driver("load_legacy.py", backend, written))


def cached(load):
    found = {}

    def on(backend):
        needs(NEEDS[backend])
        if backend not in found:
            found[backend] = load(backend)
        return found[backend]

    return on


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SAMPLES)
def test_samples(backend, name, samples_on):
    came = samples_on(backend)[name]
    assert "error" not in came, came
    assert came["difference"] < max(1e-5, EPSILON["float32"] * came["scale"])
    assert came["again"] == 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", WRITTEN)
def test_written_by_tf_keras(backend, name, written_on, request):
    if backend == "numpy" and name.startswith("softmax_over_axes"):
        reason = "Keras' own file gives Softmax a list of axes, which its NumPy backend cannot take"
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    came = written_on(backend)[name]
    assert "error" not in came, came
    kind = "float16" if name.startswith("mixed") else came["dtype"]
    if backend == "jax" and kind == "float64":
        kind = "float32"  # JAX computes in 64 bits only when it is told to
    assert came["difference"] <= EPSILON[kind] * max(1, came["scale"])
    assert came["again"] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_alone(backend, written_on):
    for name, difference in written_on(backend)["weights_only"].items():
        assert difference < 1e-5, name


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_what_is_not_carried_over_is_said_once(suffix, written_on):
    found = written_on("numpy")
    (warning,) = found[f"custom_loss.{suffix}"]["warnings"]
    assert warning.endswith("not carried over: the optimizer's state, its custom loss")
    assert found[f"custom_loss.{suffix}"]["loss"] == "None"
    (warning,) = found[f"compiled.{suffix}"]["warnings"]
    assert warning.endswith("not carried over: the optimizer's state")
    assert found[f"compiled.{suffix}"]["optimizer"].lower().startswith("sgd")
    loss = found[f"compiled.{suffix}"]["loss"].lower().replace("_", "")
    assert "sparsecategoricalcrossentropy" in loss
    assert found[f"shared_layers.{suffix}"]["warnings"] == []


@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_a_compiled_model_evaluates_as_it_did(backend, suffix, written_on):
    for name in FOR_TWO:
        came, theirs = written_on(backend)[f"{name}.{suffix}"]["evaluated"]
        # With a loss for one output alone, Keras 3 does not tell it once more.
        assert set(theirs) - {"head_a_loss"} <= set(came) <= set(theirs)
        for key, value in came.items():
            assert value == pytest.approx(theirs[key], rel=1e-4), key


def test_enough_samples():
    assert len(SAMPLES) == 28


@pytest.fixture
def converted(tmp_path, monkeypatch, capsys):
    """Run ``lcmulti convert`` in a process of its own."""
    import os
    import subprocess
    import sys

    def convert(*arguments):
        environment = os.environ | {"KERAS_BACKEND": "numpy", "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, "-m", "lcmulti", "convert", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, check=False, cwd=tmp_path
        )

    return convert


def test_convert(converted, tmp_path):
    needs("tf_keras")
    pytest.importorskip("safetensors")
    old = DATA / "lc2_cf_i2_same.h5"
    done = converted(old, "new.keras", "--safetensors", "new.safetensors", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    scale = np.abs(np.load(DATA / "lc2_cf_i2_same.npz")["y"]).max()
    assert report["difference"] < max(1e-5, EPSILON["float32"] * scale)
    (local,) = (row for row in report["layers"] if row["class"] == "LocallyConnected2D")
    assert local["stored as"] == "keras2-2"
    assert report["lost"] == ["the optimizer's state"]

    sample = np.load(DATA / "lc2_cf_i2_same.npz")
    for name in (None, "lc"):
        kernel, bias, spec, transposed = lcmulti.load_weights(
            tmp_path / "new.safetensors", layer=name
        )
        assert not transposed
    y = lcmulti.local_conv(
        sample["x"], kernel, bias, **spec.arguments(),
    )  # fmt: skip
    np.testing.assert_allclose(y, sample["z"], rtol=1e-5, atol=1e-5)
    if importlib.util.find_spec("torch"):
        import torch
        from lcmulti_torch import LocallyConnected2d

        layer = LocallyConnected2d(
            spec.in_channels, spec.filters, spec.kernel_size, spec.input_size, spec.strides,
            spec.padding,
        )  # fmt: skip
        kernel, bias, *_ = lcmulti.load_weights(
            tmp_path / "new.safetensors", layer.spec, layer="lc", backend="torch"
        )
        layer.load_state_dict({"weight": kernel, "bias": bias})
        with torch.no_grad():
            theirs = layer(torch.from_numpy(sample["x"])).numpy()
        np.testing.assert_allclose(theirs, y, rtol=1e-5, atol=1e-5)

    done = converted(old, "new.keras")
    assert done.returncode == 2
    assert "exists; replace it with --overwrite" in done.stderr
    done = converted(old, "new.keras", "--overwrite", "--no-compare")
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "keras2-2" in done.stdout
    assert sorted(each.name for each in tmp_path.iterdir()) == ["new.keras", "new.safetensors"]

    done = converted(DATA / "e_nest.h5", "new.keras", "--overwrite", "--no-compare", "--json")
    layers = {row["layer"]: row["stored as"] for row in json.loads(done.stdout)["layers"]}
    assert layers["inner/lc"] == "keras2-1" and layers["inner"] == "", layers


def test_convert_refuses_in_one_line(converted, tmp_path):
    (tmp_path / "bad.h5").write_bytes(b"nothing")
    for arguments, message in (
        (("bad.h5", "new.keras"), "bad.h5 is neither an HDF5 file nor a .keras archive"),
        (("bad.h5", "new.h5"), "NEW: expected a name that ends in .keras"),
    ):
        done = converted(*arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["bad.h5"]
