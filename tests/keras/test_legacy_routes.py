"""Models in two files, models of TensorFlow.js, and the files that ``convert`` writes."""

import json
import os
import resource
import shutil

import numpy as np
import pytest
from helpers_hostile import DATA, h5py, lcmulti_keras

from lcmulti.errors import FileError

NAME = "lc2_cl_i1_valid"


@pytest.fixture
def architecture():
    with h5py.File(DATA / f"{NAME}.h5") as file:
        return json.loads(file.attrs["model_config"])


def check(model):
    sample = np.load(DATA / f"{NAME}.npz")
    np.testing.assert_allclose(model.predict(sample["x"], verbose=0), sample["y"], atol=1e-4)


def javascript(folder, architecture):
    """Write what TensorFlow.js' converter does: names without a layer, and numbers in two files."""
    weights, content = [], b""
    with h5py.File(DATA / f"{NAME}.h5") as file:
        for layer in file["model_weights"].attrs["layer_names"]:
            group = file["model_weights"][layer]
            for name in group.attrs["weight_names"]:
                array = group[name][()]
                plain = name.decode() if isinstance(name, bytes) else name
                weights.append(
                    {"name": plain.partition(":")[0], "shape": array.shape, "dtype": "float32"}
                )
                content += array.astype("<f4").tobytes()
    (folder / "shard1").write_bytes(content[:101])
    (folder / "shard2").write_bytes(content[101:])
    manifest = [{"paths": ["shard1", "shard2"], "weights": weights}]
    topology = {"model_config": architecture, "keras_version": "2.15.0"}
    whole = {"format": "layers-model", "modelTopology": topology, "weightsManifest": manifest}
    (folder / "model.json").write_text(json.dumps(whole))
    return whole


def test_an_architecture_and_weights(tmp_path, architecture):
    (tmp_path / "model.json").write_text(json.dumps(architecture | {"keras_version": "2.4.0"}))
    check(lcmulti_keras.load_legacy_model(tmp_path / "model.json", weights=DATA / f"{NAME}.h5"))
    with pytest.raises(FileError, match="weights="):
        lcmulti_keras.load_legacy_model(tmp_path / "model.json")
    # Some people write the text of `to_json` as JSON once more.
    (tmp_path / "model.json").write_text(json.dumps(json.dumps(architecture)))
    check(lcmulti_keras.load_legacy_model(tmp_path / "model.json", weights=DATA / f"{NAME}.h5"))


def test_a_file_beside_an_index_is_what_it_holds(tmp_path):
    shutil.copy(DATA / f"{NAME}.h5", tmp_path / "m.h5")
    (tmp_path / "m.h5.index").write_bytes(b"x")
    check(lcmulti_keras.load_legacy_model(tmp_path / "m.h5", compile=False))


def test_tensorflow_js(tmp_path, architecture):
    javascript(tmp_path, architecture)
    check(lcmulti_keras.load_legacy_model(tmp_path / "model.json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w["weightsManifest"][0].update(paths=["../shard1", "shard2"]), "no plain name"),
        (lambda w: w["weightsManifest"][0].update(paths=["shard1"]), "bytes in files of"),
        (lambda w: w["weightsManifest"][0].update(paths=["shard1", "shard1"]), "one twice"),
        (lambda w: w["weightsManifest"][0]["weights"][0].update(
            quantization={"dtype": "uint8"}), "quantised"),
        (lambda w: w["weightsManifest"][0]["weights"][0].update(shape=[2**47, 2**47]), "bytes in"),
        (lambda w: w["weightsManifest"][0]["weights"][0].update(name="x/kernel"), "no layer"),
        (lambda w: w.update(format="graph-model"), "graph model"),
    ],
)  # fmt: skip
def test_tensorflow_js_refused(change, message, tmp_path, architecture):
    whole = javascript(tmp_path, architecture)
    change(whole)
    (tmp_path / "model.json").write_text(json.dumps(whole))
    with pytest.raises(FileError, match=message):
        lcmulti_keras.load_legacy_model(tmp_path / "model.json")


def test_all_files_or_none(tmp_path, monkeypatch):
    from lcmulti_keras.legacy import converting

    new, beside = tmp_path / "new.keras", tmp_path / "new.safetensors"
    new.write_bytes(b"what was there")

    def full(model, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(converting, "write_safetensors", full)
    with pytest.raises(FileError, match="No space left"):
        converting.convert(DATA / f"{NAME}.h5", new, beside)
    assert new.read_bytes() == b"what was there"
    assert [each.name for each in tmp_path.iterdir()] == ["new.keras"]


@pytest.mark.parametrize("most", [0, 4_000, 12_000, 20_000])
def test_a_full_disk(most, tmp_path):
    """If writing fails, after however many bytes, an old file stays and no new one appears."""
    from lcmulti_keras.legacy import converting

    new, beside = tmp_path / "new.keras", tmp_path / "new.safetensors"
    new.write_bytes(b"what was there")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        with pytest.raises(FileError, match=r"new\.\w+ cannot be written \("):
            converting.convert(DATA / f"{NAME}.h5", new, beside)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert new.read_bytes() == b"what was there"
    assert [each.name for each in tmp_path.iterdir()] == ["new.keras"]


def test_the_second_file_that_cannot_be_put_in_its_place_takes_the_first_back(tmp_path):
    from lcmulti_keras.legacy.writing import Written

    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"old")
    with Written([one, two]) as files:
        files.write(one, lambda draft: draft.write_bytes(b"new"))
        files.write(two, lambda draft: draft.write_bytes(b"new"))
        two.mkdir()
        with pytest.raises(FileError, match="cannot be written"):
            files.publish()
    assert one.read_bytes() == b"old"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["one", "two"]


def test_an_interrupt_between_two_files_takes_the_first_back(tmp_path, monkeypatch):
    from lcmulti_keras.legacy import writing

    one, two, moved = tmp_path / "one", tmp_path / "two", []
    for path in (one, two):
        path.write_bytes(b"old")

    def keep(path, kept):
        moved.append(path)
        if len(moved) == 2:
            raise KeyboardInterrupt
        kept.write_bytes(path.read_bytes())

    monkeypatch.setattr(writing, "_keep", keep)
    with pytest.raises(KeyboardInterrupt), writing.Written([one, two]) as files:
        for path in (one, two):
            files.write(path, lambda draft: draft.write_bytes(b"new"))
        files.publish()
    assert [each.read_bytes() for each in (one, two)] == [b"old", b"old"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["one", "two"]


def test_links_and_modes_stay_and_what_is_no_file_is_never_replaced(tmp_path):
    from lcmulti_keras.legacy.writing import Written

    new, behind, pipe = tmp_path / "new", tmp_path / "behind", tmp_path / "pipe"
    behind.write_bytes(b"old")
    behind.chmod(0o640)
    new.symlink_to(behind)
    with Written([new]) as files:
        files.write(new, lambda draft: draft.write_bytes(b"new"))
        files.publish()
    assert new.is_symlink() and behind.read_bytes() == b"new"
    assert behind.stat().st_mode & 0o777 == 0o640
    os.mkfifo(pipe)
    with pytest.raises(FileError, match="a pipe, not a file"):
        Written([tmp_path / "other", pipe])
    assert pipe.is_fifo()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["behind", "new", "pipe"]


def test_no_other_program_is_given_the_stranger_s_file(tmp_path, monkeypatch):
    from lcmulti_keras.legacy import converting

    given = []

    def run(command, **how):
        given.extend(command)
        raise converting.subprocess.SubprocessError

    monkeypatch.setattr(converting, "find_spec", lambda name: True)
    monkeypatch.setattr(converting.subprocess, "run", run)
    old = DATA / f"{NAME}.h5"
    loaded = converting.load(old)
    assert "not compared" in converting.difference(old, loaded)
    assert str(old) not in given
    assert any(str(each).endswith("copy.h5") for each in given)


def test_a_copy_holds_no_class_that_is_not_known(tmp_path, architecture):
    from lcmulti_keras.legacy.checked_copy import write_checked
    from lcmulti_keras.legacy.stored import Archive, Folder

    lambda_layer = {"class_name": "Lambda", "config": {"function": "x"}}
    hidden = architecture | {"build_config": {"deep": [lambda_layer]}}
    archive = Archive(hidden, None, "2", Folder(), by_path=False, has_optimizer=False)
    with pytest.raises(FileError, match="Lambda"):
        write_checked(tmp_path, archive, tmp_path)
