"""Old models load on each of Keras' backends: those in ``data``, and those tf_keras writes."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers_keras import BACKENDS, DRIVERS, needs

import lcmulti

DATA = Path(__file__).parents[1] / "data" / "legacy_models"
SAMPLES = sorted(path.name for path in DATA.glob("*.[hk]*"))
NAMES = re.findall(r"@model\ndef (\w+)", (DRIVERS / "legacy_models.py").read_text("utf-8"))
TELLING = re.findall(r'"(\w+\.\w+)"', re.search(
    r"TELLING = {.*?}", (DRIVERS / "load_legacy.py").read_text("utf-8"), re.DOTALL)[0])  # fmt: skip
FOR_TWO = [f"compiled_for_{each}" for each in ("two", "all", "one", "objects")]
WRITTEN = [f"{name}.{suffix}" for name in (*NAMES, "compiled", "custom_loss", *FOR_TWO)
           for suffix in ("h5", "keras")]  # fmt: skip
WRITTEN += ["old_fashioned.h5", "old_nested.h5", "by_theano.h5", "big_endian.h5"]
EPSILON = {"float16": 2e-3, "float32": 2e-6, "float64": 1e-12}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("keras"), reason="Keras is not installed"),
]


def files():
    """Yield each file on NumPy, and on the other backends those that backends load differently."""
    for name in (*SAMPLES, *WRITTEN):
        for backend in BACKENDS:
            if backend == "numpy" or name in TELLING:
                yield pytest.param(backend, name, id=f"{name}-{backend}")


@pytest.mark.parametrize(("backend", "name"), list(files()))
def test_gives_what_it_gave(backend, name, loaded, request):
    if backend == "numpy" and name == "softmax_over_axes.keras":
        reason = "Keras' own file gives Softmax a list of axes, which its NumPy backend cannot take"
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    came = loaded(backend)[name]
    assert "error" not in came, came
    kind = "float16" if name.startswith("mixed") else came["dtype"]
    if backend == "jax" and kind == "float64":
        kind = "float32"  # JAX computes in 64 bits only when it is told to
    most = EPSILON[kind] * max(1, came["scale"])
    assert came["difference"] <= (max(1e-5, most) if name in SAMPLES else most)
    assert came["again"] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_alone(backend, loaded):
    for name, difference in loaded(backend)["weights_only"].items():
        assert difference < 1e-5, name


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_what_is_not_carried_over_is_said_once(suffix, loaded):
    found = loaded("numpy")
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
def test_a_compiled_model_evaluates_as_it_did(backend, loaded):
    for name in TELLING:
        if not name.startswith("compiled_for"):
            continue
        came, theirs = loaded(backend)[name]["evaluated"]
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
