"""Weights of several processes are written to one file or several, and read by any number."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass

import numpy as np
import pytest
from helpers_weights import SPEC, arrays

import lcmulti
from lcmulti.errors import FileError
from lcmulti.weights import file as weights_file
from lcmulti.weights import tensors
from lcmulti.weights.file import Weights, save_layers
from lcmulti.weights.spread import Held


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


def boxes(shape):
    """Yield three boxes that together cover an array of *shape*."""
    half = shape[0] // 2
    yield (slice(0, half), *(slice(0, n) for n in shape[1:]))
    yield (slice(half, shape[0]), slice(0, 1), *(slice(0, n) for n in shape[2:]))
    yield (slice(half, shape[0]), slice(1, shape[1]), *(slice(0, n) for n in shape[2:]))


class ThreadGroup:
    """The group of processes that `save_layers` talks through, made of threads."""

    def __init__(self, rank, barrier, told):
        self.rank, self._barrier, self._told = rank, barrier, told

    def tell(self, text):
        self._told[self.rank] = text
        self._barrier.wait()
        heard = [self._told[rank] for rank in range(self._barrier.parties)]
        self._barrier.wait()
        return heard


def saved_by(count, path, make, per_process, write=save_layers):
    """Save on *count* threads, each with its part; return what each of them raised."""
    barrier, told, raised = threading.Barrier(count, timeout=20), {}, {}

    def work(rank):
        try:
            write(path, {"": make(ThreadGroup(rank, barrier, told))}, per_process=per_process)
        except Exception as error:
            raised[rank] = error
            if not isinstance(error, FileError):
                barrier.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(count)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return raised


@dataclass
class Spread:
    """An array of which this process has some boxes."""

    array: np.ndarray
    boxes: list
    processes: object


@pytest.fixture
def spread(monkeypatch):
    """Let files of weights take `Spread` arrays, as from a backend with several processes."""
    whole = weights_file._held

    def held(argument, array):
        if not isinstance(array, Spread):
            return whole(argument, array)
        pieces = [(box, array.array[box]) for box in array.boxes]
        return Held(array.array.dtype.name, array.array.shape, pieces, array.processes)

    monkeypatch.setattr(weights_file, "_held", held)


@pytest.mark.parametrize("per_process", [False, True])
def test_several_processes_write_and_any_number_reads(path, spread, per_process):
    kernel, bias = arrays()

    def make(turns):
        mine = [box for number, box in enumerate(boxes(kernel.shape)) if number == turns.rank]
        of_bias = [tuple(slice(0, n) for n in bias.shape)] if turns.rank == 2 else []
        return Weights(Spread(kernel, mine, turns), Spread(bias, of_bias, turns), SPEC, False)

    assert saved_by(3, path, make, per_process) == {}
    loaded = lcmulti.load_weights(path, SPEC)
    np.testing.assert_array_equal(loaded.kernel, kernel)
    np.testing.assert_array_equal(loaded.bias, bias)
    files = sorted(each.name for each in path.parent.iterdir())
    assert len(files) == (4 if per_process else 1)
    for rows in (slice(0, 1), slice(1, 3), slice(2, None), slice(3, 3)):
        wanted = rows, slice(None), slice(1, 2)
        part = lcmulti.load_weights(path, part=lambda name, shape: wanted[: len(shape) - 1])  # noqa: B023
        np.testing.assert_array_equal(part.kernel, kernel[wanted])
    # A second save removes the files of the first index, and the new values are read.
    kernel[:] = 7
    assert saved_by(3, path, make, per_process) == {}
    assert lcmulti.load_weights(path).kernel.max() == 7
    assert len(list(path.parent.iterdir())) == len(files)


@pytest.mark.parametrize("per_process", [False, True])
def test_one_of_several_that_cannot_write_fails_them_all(path, spread, monkeypatch, per_process):
    kernel, _ = arrays()
    lcmulti.save_weights(path, kernel, spec=SPEC)
    original = tensors.write

    def full(stream, tensor, box, array):
        if array.shape != kernel[next(boxes(kernel.shape))].shape:
            raise OSError(28, "No space left on device")
        original(stream, tensor, box, array)

    monkeypatch.setattr("lcmulti.weights.spread.write", full)

    def make(turns):
        mine = [box for number, box in enumerate(boxes(kernel.shape)) if number == turns.rank]
        return Weights(Spread(kernel + 1, mine, turns), None, SPEC, False)

    raised = saved_by(3, path, make, per_process)
    message = f"{path} cannot be written (No space left on device), on process 1"
    assert {str(each) for each in raised.values()} == {message}
    assert len(raised) == 3
    np.testing.assert_array_equal(lcmulti.load_weights(path).kernel, kernel)
    assert len(list(path.parent.iterdir())) == 1


BAD_INDICES = {
    "another format": lambda index: index | {"format": "x"},
    "a version to come": lambda index: index | {"version": 2},
    "another word": lambda index: index | {"of": "other"},
    "no tensors": lambda index: index | {"tensors": None},
    "metadata of numbers": lambda index: index | {"metadata": {"format": 1}},
    "a part twice": lambda index: changed(index, lambda parts: [parts[0], parts[0]]),
    "a part less": lambda index: changed(index, lambda parts: parts[1:]),
    "a part outside": lambda index: changed(
        index, lambda parts: [parts[0], parts[1] | {"start": [99, 0, 0, 0, 0, 0]}]
    ),
    "a part elsewhere": lambda index: changed(
        index, lambda parts: [parts[0], parts[1] | {"file": "../" + parts[1]["file"]}]
    ),
    "a part of another name": lambda index: changed(
        index, lambda parts: [parts[0], parts[1] | {"key": "other"}]
    ),
    "a huge tensor": lambda index: changed(
        index, lambda parts: [parts[0] | {"shape": [2**40, 5, 3, 2, 2, 6]}]
    ),
}


def changed(index, change):
    kernel = index["tensors"]["kernel"]
    return index | {"tensors": {"kernel": kernel | {"parts": change(kernel["parts"])}}}


@pytest.mark.parametrize("name", BAD_INDICES)
def test_hostile_indices_are_refused(path, spread, name):
    kernel, _ = arrays()

    def make(turns):
        half = [box for number, box in enumerate(boxes(kernel.shape)) if number == 0]
        rest = (slice(half[0][0].stop, kernel.shape[0]), *half[0][1:])
        return Weights(
            Spread(kernel, [*half] if not turns.rank else [rest], turns), None, SPEC, False
        )

    assert saved_by(2, path, make, True) == {}
    assert lcmulti.load_weights(path).spec == SPEC
    path.write_text(json.dumps(BAD_INDICES[name](json.loads(path.read_text()))))
    with pytest.raises(FileError, match="is refused: expected "):
        lcmulti.load_weights(path)
