"""Files made to take time or memory: a count refuses each kind of them, at any size."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers_hostile import (
    DATA,
    FLAT,
    GRAPH,
    h5py,
    in_turn,
    refused,
    with_config,
    with_file,
    with_zip,
)

from lcmulti.errors import ArgumentTypeError

MOST_GROWTH = 200 * 2**10
MOST_SECONDS = 5


def start(name="in", shape=(3,)):
    config = {"name": name, "batch_input_shape": [None, *shape], "dtype": "float32"}
    return {"class_name": "InputLayer", "name": name, "config": config, "inbound_nodes": []}


def called(name, *calls, cls="ReLU", **config):
    nodes = [[[each, 0, 0, {}] for each in call] for call in calls]
    return {"class_name": cls, "name": name, "config": {"name": name} | config,
            "inbound_nodes": nodes}  # fmt: skip


def functional(layers, outputs, name="m", inputs=("in",)):
    config = {"name": name, "layers": layers, "input_layers": [[each, 0, 0] for each in inputs],
              "output_layers": outputs}  # fmt: skip
    return {"class_name": "Functional", "name": name, "config": config}


def as_file(config):
    return with_config(lambda _: config)


def models_within(depth, calls, held=False):
    """Nest models *depth* deep, each of which calls the next one *calls* times."""
    made = functional([start(), called("r", ["in"])], [["r", 0, 0]], "m0")
    for level in range(1, depth):
        inner = made["name"]
        made["inbound_nodes"] = [[["in", 0, 0, {}]]] * calls
        add = called("a", [inner] * calls, cls="Add")
        add["inbound_nodes"] = [[[inner, number, 0, {}] for number in range(calls)]]
        made = functional([start(), made, add], [["a", 0, 0]], f"m{level}")
    if held:  # in the configuration of a custom class
        made = {"class_name": "Holder", "config": {"name": "h", "inner": {"deep": [made]}}}
        made = functional([start(), called("h", ["in"]) | made], [["h", 0, 0]])
    return as_file(made)


def inputs_of_one_layer(count):
    return as_file(functional([start(), called("c", ["in"] * count, cls="Add")], [["c", 0, 0]]))


def inputs_of_a_model(count):
    names = [f"i{number}" for number in range(count)]
    layers = [*map(start, names), called("c", names, cls="Add")]
    return as_file(functional(layers, [["c", 0, 0]], inputs=names))


def outputs(count):
    return as_file(functional([start(), called("r", ["in"])], [["r", 0, 0]] * count))


def keywords(count):
    layer = called("r", ["in"])
    layer["inbound_nodes"] = [[["in", 0, 0, {f"k{n}": ["in", 0, 0] for n in range(count)}]]]
    return as_file(functional([start(), layer], [["r", 0, 0]]))


def calls_of_one_layer(count):
    layer = called("r", ["in"], *(["r"] for _ in range(count)))
    return as_file(functional([start(), layer], [["r", 0, 0]]))


def wrapped(cls, depth, inner):
    for number in range(depth):
        inner = {"class_name": cls, "config": {"name": f"w{number}", "layer": inner}}
    return with_config(lambda c: c["config"]["layers"].append(inner))


def long_name(length):
    return with_config(lambda c: c["config"]["layers"][1]["config"].update(name="n" * length))


def chain_of_groups(depth):
    def change(file):
        group = file.id
        for _ in range(depth):
            group = h5py.h5g.create(group, b"g")

    return with_file(change)


def many_groups(count):
    def change(file):
        for number in range(count):
            h5py.h5g.create(file.id, str(number).encode())

    return with_file(change)


def doubling_groups(depth):
    def change(file):
        group = file.create_group("d")
        for _ in range(depth):
            inner = group.create_group("a")
            group["b"] = inner
            group = inner

    return with_file(change)


def names(count, length):
    def make(path):
        with_file(lambda file: None)[0](path)
        with h5py.File(path, "r+", libver="latest") as file:
            group = file.create_group("x")
            for number in range(count):
                file[f"{number:05}" + "a" * length] = group

    return make, "h5"


def attributes(count):
    def make(path):
        with h5py.File(path, "w", libver="latest") as file:
            for number in range(count):
                file.attrs[f"a{number}"] = 1

    return make, "h5"


def listed(lists, count):
    """Add lists of names, which take little space in a file and much memory when they are read."""

    def change(file):
        group = file["model_weights/lc"]
        for number in range(lists):
            group.attrs[f"weight_names{number}"] = np.full(count, b"a", "S1")

    return with_file(change)


def pieces(count):
    return with_file(lambda f: f.create_dataset("c", data=np.zeros(count, "u1"), chunks=(1,)))


def padded_bomb(size):
    def change(members):
        return members | {"model.weights.h5": os.urandom(2**20) + bytes(size)}

    return with_zip(change, zipfile.ZIP_DEFLATED)


def many_members(count):
    return with_zip(lambda members: members | {f"f{number}": b"" for number in range(count)})


def beside(head, tail, suffix):
    """Join two files, so that one reader takes the result for the first and one for the second."""
    return lambda path: path.write_bytes(head.read_bytes() + tail), suffix


def with_hdf5_behind(path):
    """Write a valid archive that is also an HDF5 file, which begins behind a block of others."""
    members, hidden = {}, (DATA / f"{FLAT}.h5").read_bytes()
    with zipfile.ZipFile(DATA / f"{FLAT}.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    at = 2**15
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr("x", bytes(at - archive.fp.tell() - 31) + hidden)
    assert path.read_bytes()[at : at + 8] == b"\x89HDF\r\n\x1a\n"


KINDS = {
    "models within models": (models_within(30, 2), "more than 4,000 layers"),
    "inputs of one layer": (inputs_of_one_layer(5_000), "5,000 inputs of one layer"),
    "a chain of groups": (chain_of_groups(30_000), "nested deeper"),
    "a zip archive and an HDF5 file": ((with_hdf5_behind, "keras"), "at once"),
    "models that a class holds": (models_within(20, 2, held=True), "more than 4,000 layers"),
    "models within models, few": (models_within(8, 9), "more than 4,000 layers"),
    "inputs of a model": (inputs_of_a_model(3_900), "3,900 inputs"),
    "outputs": (outputs(50_000), "50,000 outputs"),
    "keywords": (keywords(30_000), "inputs of one layer"),
    "calls of one layer": (calls_of_one_layer(30_000), "links between layers|more than"),
    "layers that are two": (
        wrapped("Bidirectional", 25, {"class_name": "LSTM", "config": {"units": 2}}),
        "more than 4,000 layers"),
    "a long name": (long_name(10**6), "a name of 1,000,000 characters"),
    "many groups": (many_groups(30_000), "more than 25,000 objects"),
    "groups that double": (doubling_groups(40), "two names"),
    "long names": (names(500, 60_000), "a name of 60,005 bytes"),
    "attributes": (attributes(5_000), "5,000 attributes"),
    "names in a list": (listed(1, 30_000), "30,000 names"),
    "lists of names": (listed(20, 2_000), "lists of more than 25,000 names"),
    "pieces": (pieces(30_000), "more than 10,000 pieces"),
    "a padded bomb": (padded_bomb(300 * 2**20), "claims"),
    "members": (many_members(3_000), "members"),
    "a zip archive with a tail": (beside(DATA / f"{FLAT}.keras", b"x" * 99, "keras"), "behind"),
}  # fmt: skip


@pytest.mark.parametrize("what", in_turn(KINDS, every=4))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_refused(what, tmp_path, monkeypatch):
    _, seconds = refused(KINDS[what], MOST_GROWTH, tmp_path, monkeypatch)
    assert seconds < MOST_SECONDS


LIMITED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from limits import set_limits
set_limits(memory=2**27, seconds=1)
time.sleep(1.2)
try:
    bytearray(2**28)
except MemoryError:
    print("waited, and has no such memory", flush=True)
while True:
    pass
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems limit less")
def test_the_process_that_reads_may_wait_but_not_compute():
    from lcmulti_keras.legacy import apart

    folder = str(Path(apart.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, folder], capture_output=True, text=True, check=False
    )
    assert done.stdout == "waited, and has no such memory\n", done.stderr
    assert done.returncode == -signal.SIGXCPU


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_not_waited_for(make, tmp_path):
    import lcmulti_keras

    from lcmulti.errors import FileError

    make(tmp_path / "m.h5")
    with pytest.raises(FileError, match="not a file"):
        lcmulti_keras.load_legacy_model(tmp_path / "m.h5")


@pytest.mark.parametrize("name", ["m" * 5000, "a\0b", "a\ud800"])
def test_a_path_that_cannot_be_is_one_short_error(name, tmp_path):
    import lcmulti_keras

    from lcmulti.errors import FileError

    with pytest.raises(FileError) as caught:
        lcmulti_keras.load_legacy_model(tmp_path / name)
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("path", [3, None, b"m.h5"])
def test_what_is_no_path(path):
    import lcmulti_keras

    with pytest.raises(ArgumentTypeError, match="path: expected a path"):
        lcmulti_keras.load_legacy_model(path)


def test_a_sound_model_with_an_odd_description_of_its_training_loads(tmp_path):
    import lcmulti_keras

    make, _ = with_config(lambda config: config, GRAPH)
    make(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        file.attrs["training_config"] = json.dumps(
            {"optimizer_config": [1], "loss": {}, "metrics": 3}
        )
    with pytest.warns(UserWarning, match="how it was compiled"):
        lcmulti_keras.load_legacy_model(tmp_path / "m.h5")
