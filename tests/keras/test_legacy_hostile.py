"""Unsafe files: each is refused in one clear error, and nothing is written or run."""

import zipfile

import numpy as np
import pytest
from helpers_hostile import (
    DATA,
    EVIL,
    FLAT,
    GRAPH,
    HUGE,
    KERNEL,
    LAMBDA,
    content,
    cut,
    doubled,
    encrypted,
    graph,
    h5py,
    in_turn,
    lcmulti_keras,
    linked,
    local,
    nested,
    node,
    refused,
    replaced,
    virtual,
    weights_of,
    with_config,
    with_file,
    with_zip,
    write_zip,
    zip_members,
)

from lcmulti.errors import FileError

MOST_GROWTH = 300 * 2**10  # KiB, of this process's peak memory over all files

HOSTILE = {
    # what is named
    "class of another module": (node(module="os", class_name="system"), "os"),
    "known class, other module": (node(module="evil.keras", class_name="Dense"), "evil.keras"),
    "module that begins as ours": (node(module="keras_evil", class_name="Dense"), "keras_evil"),
    "another registered name": (node(registered_name="evil>Dense"), "evil>Dense"),
    "class no one knows": (node(class_name="Backdoor"), "Backdoor"),
    "builtin by name": (node(class_name="__import__"), "__import__"),
    "class name that is none": (node(class_name=["Dense"]), "where one of Keras' layers"),
    "lambda": (node(**LAMBDA), "runs code"),
    "lambda in .h5": (node("h5", **LAMBDA), "runs code"),
    "serialised lambda": (node(class_name="__lambda__", config={"value": "x"}), "__lambda__"),
    "operation by name": (node(class_name="TFOpLambda", config={"function": "io.x"}), "calls"),
    "unsafe mode turned on": (
        node(module="keras.config", class_name="enable_unsafe_deserialization"), "enable_unsafe"),
    "activation of another module": (local(activation=EVIL), "module 'os'"),
    "activation no one knows": (local(activation="os.system"), "os.system"),
    "initialiser no one knows": (local(kernel_initializer="system"), "system"),
    "initialiser that is a layer": (
        local(kernel_initializer={"class_name": "Dense", "config": {"units": 3}}), "Dense"),
    "regulariser of another module": (local(kernel_regularizer=EVIL), "module 'os'"),
    "constraint no one knows": (
        local(bias_constraint={"class_name": "Exec", "config": {}}), "Exec"),
    "wrapped layer": (node(class_name="TimeDistributed", config={"layer": LAMBDA}), "runs code"),
    "object in a plain value": (local(strides=EVIL), "plain value"),
    "tensor in a plain value": (
        local(strides={"class_name": "__tensor__", "config": {}}), "plain value"),
    "policy of another class": (
        local(dtype={"class_name": "Exec", "config": {"name": "float32"}}), "dtype"),
    "dtype no one knows": (local(dtype="object"), "dtype"),
    # names
    "name that leaves the folder": (local(name="../../../tmp/owned"), "looks like a path"),
    "absolute name": (local(name="/tmp/owned"), "looks like a path"),
    "name with a backslash": (local(name="..\\owned"), "named"),
    "name with a NUL": (local(name="a\0b"), "named"),
    "name that is none": (local(name=3), "named"),
    # sizes
    "NaN filters": (local(filters=float("nan")), "NaN"),
    "infinite filters": (local(filters=float("inf")), "Infinity"),
    "negative filters": (local(filters=-4), "filters"),
    "filters as text": (local(filters="4"), "filters"),
    "10**15 filters": (local(filters=10**15), "shape"),
    "10**30 filters": (local(filters=10**30), "cannot be built|shape|OverflowError"),
    "window of 10**18": (local(kernel_size=[10**9, 10**9]), "kernel_size"),
    "strides of 0": (local(strides=[0, 1]), "strides"),
    "wrong rank": (local(kernel_size=[2, 3, 4]), "kernel_size"),
    "10**12 units": (with_config(
        lambda c: c["config"]["layers"][-1]["config"].update(units=10**12)), "shape"),
    "huge input": (with_config(lambda c: c["config"]["layers"][0]["config"].update(
        batch_input_shape=[None, 10**9, 10**9, 3])), "shape"),
    "input that is no shape": (with_config(lambda c: c["config"]["layers"][0]["config"].update(
        batch_input_shape="5,6,3")), "shape"),
    "option no one knows": (local(backdoor=True), "backdoor"),
    # structure
    "no JSON": (with_config(lambda c: "{'class_name'"), "JSON"),
    "no object": (with_config(lambda c: "[1, 2]"), "JSON"),
    "deep JSON": (with_config(lambda c: "[" * 10**5), "JSON"),
    "deep JSON that ends": (
        with_config(lambda c: '{"a":' * 5000 + "1" + "}" * 5000), "JSON|nested deeper"),
    "deep nesting of models": (nested(200), "nested deeper"),
    "no layers": (with_config(lambda c: c.update(config={})), "without a list"),
    "layers that are none": (with_config(lambda c: c["config"].update(layers=[1])), "where one"),
    "graph with a loop": (graph(lambda c: c["layers"][1].update(
        inbound_nodes=[[["flatten_2", 0, 0, {}]]])), "cannot be made"),
    "graph of unknown layers": (graph(lambda c: c["layers"][1].update(
        inbound_nodes=[[["nothing", 0, 0, {}]]])), "unknown layer"),
    "graph with one name twice": (graph(lambda c: c["layers"].append(c["layers"][1])), "two"),
    "graph without outputs": (graph(lambda c: c.update(output_layers=[])), "without inputs"),
    "graph of an output that is not": (graph(lambda c: c.update(
        output_layers=[["flatten_2", 0, 7]])), "output 7"),
    "ragged input": (with_config(
        lambda c: c["config"]["layers"][0]["config"].update(ragged=True)), "ragged"),
    # HDF5
    "soft link": (linked(h5py.SoftLink("/model_weights/lc/lc/bias:0")), "link"),
    "external link": (linked(h5py.ExternalLink("/etc/passwd", "x")), "link"),
    "external storage": (replaced(shape=(8, 18, 4), dtype="f4", external=HUGE), "outside"),
    "virtual dataset": (with_file(virtual), "outside"),
    "10 TB never written": (
        replaced(shape=(10**9, 10**4), dtype="u1", chunks=(1024, 1024)), "stores 0 bytes"),
    "10 TB in the .keras": (weights_of(lambda f: f.create_dataset(
        "layers/x", (10**9, 10**4), "u1", chunks=(1024, 1024))), "stores 0 bytes"),
    "2**80 bytes": (
        replaced(shape=(2**40, 2**39), dtype="f4", chunks=(1024, 1024)), "stores 0 bytes"),
    "compressed bomb": (replaced(
        data=np.zeros((4096, 8192), "f4"), compression="gzip", chunks=True), "compressed"),
    "wrong shape": (replaced(data=np.zeros((8, 18, 5), "f4")), "has shape"),
    "transposed kernel": (replaced(data=np.zeros((4, 18, 8), "f4")), "has shape"),
    "kernel of no known rank": (replaced(data=np.zeros((2, 2), "f4")), "shape"),
    "missing kernel": (with_file(lambda f: f.__delitem__(KERNEL)), "no array"),
    "group for a kernel": (with_file(
        lambda f: (f.__delitem__(KERNEL), f.create_group(KERNEL))), "no array"),
    "text for a kernel": (replaced(data=np.array([b"x"] * 8)), "no array"),
    "objects for a kernel": (replaced(data=["x"], dtype=h5py.string_dtype()), "no array"),
    "missing layer": (with_file(lambda f: f["model_weights"].__delitem__("lc")), "does not have"),
    "names that are numbers": (with_file(
        lambda f: f["model_weights"].attrs.__setitem__("layer_names", [1, 2])), "no names"),
    "names of nothing": (with_file(
        lambda f: f["model_weights/lc"].attrs.__setitem__("weight_names", ["../x", "y"])),
        "no array"),
    "a named type": (with_file(lambda f: f.__setitem__("t", np.dtype("f4"))), "neither"),
    # containers
    "no architecture": (with_file(lambda f: f.attrs.__delitem__("model_config")), "weights only"),
    "half an .h5": (cut("h5", 0.5), "damaged|read"),
    "half a .keras": (cut("keras", 0.5), "damaged"),
    "nine tenths of a .keras": (cut("keras", 0.9), "damaged"),
    "HDF5's name alone": (content(b"\x89HDF\r\n\x1a\n" + bytes(500)), "damaged|read"),
    "zip's name alone": (content(b"PK\x03\x04" + bytes(500), "keras"), "damaged"),
    "pickle": (content(b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x04exit."), "neither"),
    "empty": (content(b""), "neither"),
    "bomb of a configuration": (with_zip(
        lambda m: m | {"config.json": b" " * 10**8}, zipfile.ZIP_DEFLATED), "claims"),
    "bomb of weights": (with_zip(
        lambda m: m | {"model.weights.h5": bytes(10**8)}, zipfile.ZIP_DEFLATED), "claims"),
    "weights that are none": (with_zip(lambda m: m | {"model.weights.h5": b"x" * 99}), "damaged"),
    "no weights": (with_zip(lambda m: m.pop("model.weights.h5") and m), "0 members"),
    "configuration twice": (doubled(), "2 members"),
    "encrypted": (encrypted(), "encrypts|damaged"),
}  # fmt: skip


def test_there_are_enough():
    assert len(HOSTILE) >= 30


@pytest.mark.parametrize("what", in_turn(HOSTILE))
@pytest.mark.filterwarnings("ignore:Do not pass")
def test_refused(what, tmp_path, monkeypatch):
    message, _ = refused(HOSTILE[what], MOST_GROWTH, tmp_path, monkeypatch)
    assert "\n" not in message.strip() or "cannot be built" in message


def test_a_saved_model_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(FileError, match=r"is a SavedModel.*python -c .*save\('model.h5'\)"):
        lcmulti_keras.load_legacy_model(tmp_path)


@pytest.mark.parametrize("kind", ["directory", "nothing"])
def test_no_file(kind, tmp_path):
    path = tmp_path / "model.h5"
    if kind == "directory":
        path.mkdir()
    with pytest.raises(FileError, match="is a directory|cannot be read"):
        lcmulti_keras.load_legacy_model(path)


def test_a_member_that_would_leave_the_folder_is_never_extracted(tmp_path):
    write_zip(tmp_path / "model.keras", zip_members() | {"../owned": b"x", "/tmp/owned": b"x"})
    lcmulti_keras.load_legacy_model(tmp_path / "model.keras", compile=False)
    assert [each.name for each in tmp_path.iterdir()] == ["model.keras"]
    assert not (tmp_path.parent / "owned").exists()


def test_a_refused_file_leaves_keras_as_it_was(tmp_path):
    """A model that is built only to be measured leaves no state behind in Keras."""
    import keras

    (make, suffix), _ = HOSTILE["10**12 units"]
    make(tmp_path / f"file.{suffix}")
    with pytest.raises(FileError):
        lcmulti_keras.load_legacy_model(tmp_path / f"file.{suffix}")
    with keras.StatelessScope():
        pass
    keras.layers.Dense(2).build((None, 3))


def test_a_refused_weights_file_leaves_the_model_as_it_was(tmp_path):
    model = lcmulti_keras.load_legacy_model(DATA / f"{FLAT}.h5", compile=False)
    before = model.get_weights()
    (make, _), message = HOSTILE["wrong shape"]
    make(tmp_path / "file.h5")
    with pytest.raises(FileError, match=message):
        lcmulti_keras.load_legacy_weights(model, tmp_path / "file.h5")
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_the_files_they_were_made_from_load(suffix):
    for name in (FLAT, GRAPH):
        model = lcmulti_keras.load_legacy_model(DATA / f"{name}.{suffix}", compile=False)
        assert np.isfinite(model.predict(np.ones((2, *model.input_shape[1:])), verbose=0)).all()


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_what_keras_3_wrote_is_for_keras_3(suffix, tmp_path):
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.save(tmp_path / f"new.{suffix}")
    with pytest.raises(FileError, match="written by Keras 3; load it with"):
        lcmulti_keras.load_legacy_model(tmp_path / f"new.{suffix}")


def test_all_that_is_allowed_exists():
    import keras
    from lcmulti_keras.legacy import allowed

    names = {f"layers.{allowed.RENAMED.get(name, name)}" for name in allowed.LAYERS}
    names -= {f"layers.{name}" for name in (*allowed.LOCAL, *allowed.MODELS)}
    names |= {f"activations.{name}" for name in allowed.ACTIVATIONS}
    for kind in ("initializers", "regularizers", "constraints", "optimizers"):
        names |= {f"{kind}.{name}" for name in allowed.KINDS[kind]}
    for name in sorted(names):
        kind, _, attribute = name.partition(".")
        assert callable(getattr(getattr(keras, kind), attribute)), name
    for name in allowed.LAYERS & {"Lambda", "TFOpLambda", "Layer", "Wrapper", "TFSMLayer"}:
        raise AssertionError(name)
