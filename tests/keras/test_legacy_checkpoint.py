"""Weights load from TensorFlow checkpoints that tf_keras wrote."""

import numpy as np
import pytest
from helpers_hostile import lcmulti_keras

from lcmulti.errors import FileError


@pytest.fixture(scope="session")
def folder(written):
    return written / "checkpoint"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ckpt.index", "whole"])
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
