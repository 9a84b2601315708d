"""TensorFlow checkpoints, written by tf_keras in a process of its own."""

import os
import subprocess
import sys

import numpy as np
import pytest
from helpers_hostile import lcmulti_keras

from lcmulti.errors import FileError

WRITE = """
import sys, numpy as np, tensorflow as tf, tf_keras as k
L, rng = k.layers, np.random.default_rng(0)
inner = k.Sequential([L.InputLayer((6, 2)), L.LocallyConnected1D(2, 2), L.BatchNormalization(),
                      L.LocallyConnected1D(2, 1)])
model = k.Sequential([L.InputLayer((6, 2)), inner, L.Bidirectional(L.LSTM(2)), L.Dense(2)])
for w in model.weights:
    w.assign(rng.uniform(0.2, 1, w.shape))
x = rng.normal(size=(4, 6, 2)).astype("float32")
np.savez("sample.npz", x=x, y=model.predict(x, verbose=0))
open("model.json", "w").write(model.to_json())
model.save_weights("ckpt")
tf.train.Checkpoint(model=model).write("whole")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("tf_keras")
    place = tmp_path_factory.mktemp("checkpoint")
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", WRITE], cwd=place, env=environment, check=True)
    return place


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ckpt.index", "ckpt", "whole"])
def test_a_checkpoint(name, folder):
    model = lcmulti_keras.load_legacy_model(folder / "model.json", weights=folder / name)
    sample = np.load(folder / "sample.npz")
    np.testing.assert_allclose(model.predict(sample["x"], verbose=0), sample["y"], atol=1e-5)


@pytest.mark.slow
def test_a_damaged_checkpoint(folder, tmp_path):
    data = "ckpt.data-00000-of-00001"
    (tmp_path / data).write_bytes((folder / data).read_bytes())
    index = bytearray((folder / "ckpt.index").read_bytes())
    index[40:60] = b"\xff" * 20
    (tmp_path / "ckpt.index").write_bytes(index)
    with pytest.raises(FileError, match="damaged"):
        lcmulti_keras.load_legacy_model(folder / "model.json", weights=tmp_path / "ckpt.index")


def test_without_tensorflow_it_says_what_it_is(tmp_path, monkeypatch):
    from lcmulti_keras.legacy import checkpoint

    (tmp_path / "ckpt.index").write_bytes(b"x" * 40 + checkpoint.MAGIC)
    with pytest.raises(FileError, match="not beside it"), checkpoint_of(tmp_path):
        pass
    (tmp_path / "ckpt.data-00000-of-00001").write_bytes(b"x")
    monkeypatch.setattr(checkpoint, "find_spec", lambda name: None)
    told = "is a TensorFlow checkpoint.*pip install"
    with pytest.raises(FileError, match=told), checkpoint_of(tmp_path):
        pass


def checkpoint_of(folder):
    from lcmulti_keras.legacy.reading import opened

    return opened(folder / "ckpt.index")
