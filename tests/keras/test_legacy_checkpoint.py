"""Weights load from TensorFlow checkpoints that tf_keras wrote."""

import numpy as np
import pytest
from helpers_hostile import lcmulti_keras

from lcmulti.errors import FileError

DATA = "ckpt.data-00000-of-00001"
MAGIC = bytes.fromhex("57fb808b247547db")


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
    """TensorFlow's reader notices what is wrong with the numbers."""
    data = bytearray((folder / DATA).read_bytes())
    data[-20:] = bytes(20)
    (tmp_path / DATA).write_bytes(data)
    (tmp_path / "ckpt.index").write_bytes((folder / "ckpt.index").read_bytes())
    with pytest.raises(FileError, match="damaged"):
        lcmulti_keras.load_legacy_model(folder / "model.json", weights=tmp_path / "ckpt.index")


def varint(value):
    found = []
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def block(*entries):
    """Return a block of LevelDB's format with its checksum, which is computed bit by bit."""
    content = b"".join(bytes([0, len(k), len(v)]) + k + v for k, v in entries)
    content += bytes(4) + (1).to_bytes(4, "little") + b"\0"
    crc = 2**32 - 1
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 2**32 - 1
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return content + masked.to_bytes(4, "little")


def index_of(entries, count=1):
    """Return an index with one block, listed *count* times."""
    first, meta = block(*entries), block()
    place = varint(0) + varint(len(first) - 5)
    listing = block(*([(b"z", place)] * count))
    footer = varint(len(first)) + varint(len(meta) - 5)
    footer += varint(len(first) + len(meta)) + varint(len(listing) - 5)
    return first + meta + listing + footer.ljust(40, b"\0") + MAGIC


SOUND = index_of([(b"a", b"1"), (b"b", b"2")])
DAMAGED = {
    "garbage": b"garbage " * 1000 + MAGIC,
    "zeros": bytes(40) + MAGIC,
    "no end of a number": b"\xff" * 40 + MAGIC,
    "cut": SOUND[7:],
    "an entry": SOUND[:5] + b"x" + SOUND[6:],
    "a block listed twice": index_of([(b"a", b"1")], count=2),
    "a block listed often": index_of([(b"a", b"1")], count=20_000),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_index_is_refused_before_tensorflow_is_started(what, tmp_path, monkeypatch):
    from lcmulti_keras.legacy import checkpoint

    monkeypatch.setattr(checkpoint, "run_apart", None)
    (tmp_path / DATA).write_bytes(b"x")
    (tmp_path / "ckpt.index").write_bytes(DAMAGED[what])
    with pytest.raises(FileError, match="no index of a TensorFlow checkpoint, or a damaged one"):
        checkpoint_of(tmp_path).__enter__()


def test_without_tensorflow_it_says_what_it_is(tmp_path, monkeypatch):
    from lcmulti_keras.legacy import checkpoint

    (tmp_path / "ckpt.index").write_bytes(SOUND)
    with pytest.raises(FileError, match="not beside it"), checkpoint_of(tmp_path):
        pass
    (tmp_path / DATA).write_bytes(b"x")
    monkeypatch.setattr(checkpoint, "find_spec", lambda name: None)
    told = "is a TensorFlow checkpoint.*pip install"
    with pytest.raises(FileError, match=told), checkpoint_of(tmp_path):
        pass


def checkpoint_of(folder):
    from lcmulti_keras.legacy.reading import opened

    return opened(folder / "ckpt.index")
