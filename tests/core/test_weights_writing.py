"""Files of weights are written whole or not at all, opened once, and need little memory."""

from __future__ import annotations

import json
import os
import tracemalloc

import numpy as np
import pytest
from helpers_weights import SPEC, arrays

import lcmulti
from lcmulti.errors import FileError
from lcmulti.replacing import Replacement
from lcmulti.weights import tensors


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


def test_a_link_stays_one_and_a_mode_stays(path):
    kernel, _ = arrays()
    behind = path.with_name("behind.safetensors")
    lcmulti.save_weights(behind, kernel, spec=SPEC)
    behind.chmod(0o640)
    path.symlink_to(behind)
    lcmulti.save_weights(path, kernel + 1, spec=SPEC)
    assert path.is_symlink()
    assert behind.stat().st_mode & 0o777 == 0o640
    np.testing.assert_array_equal(lcmulti.load_weights(behind).kernel, kernel + 1)


@pytest.mark.parametrize("per_process", [False, True])
def test_what_is_no_file_is_never_replaced(path, per_process):
    """As root, a rename would put a file in the place of ``/dev/null``."""
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to(path.with_name("pipe"))
    with pytest.raises(FileError, match=r"cannot be written \(it is a pipe, not a file\)"):
        lcmulti.save_weights(path, arrays()[0], spec=SPEC, per_process=per_process)
    assert path.is_fifo()
    assert sorted(each.name for each in path.parent.iterdir()) == ["pipe", path.name]


def test_names_are_as_long_as_the_file_system_takes(path):
    name = "n" * (os.pathconf(path.parent, "PC_NAME_MAX") - 12) + ".safetensors"
    kernel, _ = arrays()
    lcmulti.save_weights(path.with_name(name), kernel, spec=SPEC)
    assert lcmulti.load_weights(path.with_name(name)).spec == SPEC


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_leaves_the_old_file_and_no_other(path, monkeypatch, interrupt):
    lcmulti.save_weights(path, *arrays(), spec=SPEC)
    before = path.read_bytes()

    def interrupted(*_):
        raise interrupt

    monkeypatch.setattr("lcmulti.weights.spread.write", interrupted)
    with pytest.raises(interrupt):
        lcmulti.save_weights(path, *arrays(seed=1), spec=SPEC)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_writers_of_one_process_number_do_not_meet(path, monkeypatch):
    """Two containers that share a file system may have the same process number."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    names = {Replacement(path).temporary for _ in range(100)}
    assert len(names) == 100
    assert {each.parent for each in names} == {path.parent}


def test_a_read_opens_the_file_once(path, monkeypatch):
    """A second opening could read metadata of one writer and tensors of another."""
    lcmulti.save_weights(path, *arrays(), spec=SPEC)
    opened, original = [], os.open

    def counted(name, *arguments, **keywords):
        opened.append(os.fspath(name))
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(os, "open", counted)
    lcmulti.load_weights(path)
    assert opened == [str(path)]


def test_the_header_decides_before_anything_is_read(path):
    """A foreign, sparse file of 64 GB is refused by its header."""
    header = tensors.header_for({"x": ("float32", (2**34,))}, {})
    with path.open("wb") as stream:
        stream.write(header.content)
        stream.truncate(header.size)
    with pytest.raises(FileError, match="expected metadata with format"):
        lcmulti.load_weights(path)


@pytest.mark.parametrize("order", ["C", "F"])
def test_little_more_memory_than_the_weights(path, order):
    spec = lcmulti.LocalConvSpec((400, 64), 64, 8, data_format="channels_last")
    kernel = np.asarray(np.ones(spec.kernel_shape, "float32"), order=order)
    assert kernel.nbytes > 2 * tensors.PIECE
    tracemalloc.start()
    lcmulti.save_weights(path, kernel, spec=spec)
    _, saving = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    loaded = lcmulti.load_weights(path)
    _, loading = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert saving < 0.4 * kernel.nbytes  # beside the array itself
    assert loading < 1.3 * kernel.nbytes
    assert loaded.kernel[0, 0, 0, 0] == 1


@pytest.mark.parametrize(
    "header",
    [
        {"kernel": {"dtype": "F32", "shape": [2], "data_offsets": [0, 9]}},
        {"kernel": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}},
        {"kernel": {"dtype": "F32", "shape": [True, 2], "data_offsets": [0, 8]}},
        {"kernel": {"dtype": "F32", "shape": [-2, -1], "data_offsets": [0, 8]}},
        {"kernel": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}},
        {"kernel": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}},
        {"kernel": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], "more": 1}},
        {"kernel": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
        {"kernel": {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}},
        {"kernel": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 8]}},
        {"kernel": 3}, {"__metadata__": {"format": 3}}, {"__metadata__": []}, [],
    ],
)  # fmt: skip
def test_forged_headers_are_refused(path, header):
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(FileError, match="is refused: expected a readable safetensors file"):
        lcmulti.load_weights(path)
