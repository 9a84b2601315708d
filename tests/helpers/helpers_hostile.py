"""Functions that make unsafe files, and how each must be refused."""

import io
import json
import os
import re
import resource
import shutil
import time
import zipfile
from pathlib import Path

import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")  # the lightest to import
pytest.importorskip("keras")
h5py = pytest.importorskip("h5py")

import lcmulti_keras  # noqa: E402

from lcmulti.errors import FileError  # noqa: E402

DATA = Path(__file__).parents[1] / "data" / "legacy_models"
FLAT, GRAPH = "lc2_cl_i1_valid", "c_fun"


def in_turn(cases, every=10):
    """Mark all cases but every tenth as slow, because each starts a process."""
    return [
        pytest.param(each, marks=() if number % every == 0 else pytest.mark.slow)
        for number, each in enumerate(cases)
    ]


def with_config(change, name=FLAT, suffix="h5"):
    """Make a file whose configuration *change* has changed."""

    def make(path):
        if suffix == "h5":
            shutil.copy(DATA / f"{name}.h5", path)
            with h5py.File(path, "r+") as file:
                config = json.loads(file.attrs["model_config"])
                file.attrs["model_config"] = changed(change, config)
        else:
            members = zip_members(name)
            members["config.json"] = changed(change, json.loads(members["config.json"]))
            write_zip(path, members)

    return make, suffix


def changed(change, config):
    result = change(config)
    return result if isinstance(result, str) else json.dumps(config if result is None else result)


def zip_members(name=FLAT):
    with zipfile.ZipFile(DATA / f"{name}.keras") as archive:
        return {member: archive.read(member) for member in archive.namelist()}


def write_zip(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def local(**changes):
    """Change the configuration of the locally connected layer."""

    def change(config):
        (layer,) = (e for e in config["config"]["layers"] if "Locally" in e["class_name"])
        layer["config"] |= changes

    return with_config(change)


def node(suffix="keras", **changes):
    """Change the class of the last layer."""
    return with_config(lambda c: c["config"]["layers"][-1].update(changes), suffix=suffix)


def graph(change):
    return with_config(lambda c: change(c["config"]), GRAPH)


def with_file(change, name=FLAT):
    """Make a file that *change* has changed with h5py."""

    def make(path):
        shutil.copy(DATA / f"{name}.h5", path)
        with h5py.File(path, "r+") as file:
            change(file)

    return make, "h5"


KERNEL = "model_weights/lc/lc/kernel:0"


def replaced(**how):
    def change(file):
        del file[KERNEL]
        file.create_dataset(KERNEL, **how)

    return with_file(change)


def linked(link):
    def change(file):
        del file[KERNEL]
        file[KERNEL] = link

    return with_file(change)


def with_zip(change, compression=zipfile.ZIP_STORED):
    def make(path):
        members = zip_members()
        write_zip(path, change(members) or members, compression)

    return make, "keras"


def cut(suffix, share):
    def make(path):
        content = (DATA / f"{FLAT}.{suffix}").read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return make, suffix


def content(data, suffix="h5"):
    return lambda path: path.write_bytes(data), suffix


def encrypted():
    def make(path):
        write_zip(path, zip_members())
        data = bytearray(path.read_bytes())
        for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            start = 0
            while (start := data.find(magic, start)) >= 0:
                data[start + at] |= 1
                start += 4
        path.write_bytes(bytes(data))

    return make, "keras"


def doubled():
    def make(path):
        write_zip(path, zip_members())
        with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
            archive.writestr("config.json", "{}")

    return make, "keras"


def weights_of(change):
    def changed_members(members):
        stream = io.BytesIO(members["model.weights.h5"])
        with h5py.File(stream, "r+") as file:
            change(file)
        members["model.weights.h5"] = stream.getvalue()

    return with_zip(changed_members)


def nested(depth):
    def change(config):
        for _ in range(depth):
            config = {"class_name": "Sequential", "config": {"name": "s", "layers": [config]}}
        return config

    return with_config(change)


def virtual(file):
    del file[KERNEL]
    layout = h5py.VirtualLayout((8, 18, 4), "f4")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (8, 18, 4))
    file.create_virtual_dataset(KERNEL, layout)


LAMBDA = {"class_name": "Lambda", "config": {"function": ["4wEAAAA=", None, None]}}
EVIL = {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"}
HUGE = [("/etc/passwd", 0, h5py.h5f.UNLIMITED)]


def refused(case, most_growth, tmp_path, monkeypatch):
    """Load a file that must be refused by a short error, with nothing written.

    Returns the error's text and the seconds.
    """
    (make, suffix), message = case
    path = tmp_path / f"file.{suffix}"
    make(path)
    before = path.read_bytes()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "system", None)
    peak, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(FileError) as caught:
        lcmulti_keras.load_legacy_model(path)
    assert re.search(message, caught.value.reason), caught.value
    seconds = time.process_time() - start
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < most_growth
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 1000
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before
    return str(caught.value), seconds
