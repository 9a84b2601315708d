"""Files that no library writes, forged byte by byte, and ambiguous or invalid JSON are refused."""

import json
import shutil
import struct
import zipfile
import zlib
from itertools import pairwise

import numpy as np
import pytest
from helpers_hostile import (
    DATA,
    FLAT,
    KERNEL,
    h5py,
    in_turn,
    lcmulti_keras,
    local,
    node,
    refused,
    replaced,
    with_config,
    with_file,
    write_zip,
    zip_members,
)

MOST_SECONDS = 2
MOST_GROWTH = 200 * 2**10  # KiB, of this process's peak memory over one file


def dated(file):
    """Replace the kernel by one of a type that NumPy does not have."""
    del file[KERNEL]
    space = h5py.h5s.create_simple((8, 18, 4))
    h5py.h5d.create(file.id, KERNEL.encode(), h5py.h5t.UNIX_D32LE, space)


def bomb_in_a_chunk(file):
    """Replace the kernel by a chunk of 128 KiB that decompresses to 128 MiB."""
    del file[KERNEL]
    kernel = file.create_dataset(KERNEL, (8, 18, 4), "f4", chunks=(8, 18, 4), compression="gzip")
    kernel.id.write_direct_chunk((0, 0, 0), zlib.compress(bytes(2**27), 9))


def chunk_larger_than_the_array(file):
    del file[KERNEL]
    file.create_dataset(
        KERNEL, data=np.zeros((8, 18, 4), "f4"), maxshape=(None, 18, 4),
        chunks=(2**18, 18, 4), compression="gzip",
    )  # fmt: skip


def little_of_much(file):
    del file[KERNEL]
    kernel = file.create_dataset(KERNEL, (10**6, 18, 4), "f4", chunks=(8, 18, 4))
    kernel[:8] = 1


def one_array_many_times(file):
    group = file["model_weights"]
    group["array"] = np.zeros(2**18, "f4")
    for i in range(200):
        group[f"again_{i}"] = group["array"]


def patched(change, before, after):
    """Make an .h5 file in which *after* replaces each *before*; both have the same length."""

    def make(path):
        shutil.copy(DATA / f"{FLAT}.h5", path)
        with h5py.File(path, "r+") as file:
            change(file)
        content = path.read_bytes()
        assert before in content
        path.write_bytes(content.replace(before, after))

    return make, "h5"


def text_of_4_gb():
    marked = 12_345_678  # a length that occurs nowhere else in the file
    return patched(
        lambda file: file.attrs.__setitem__("training_config", "x" * marked),
        struct.pack("<I", marked), struct.pack("<I", 2**32 - 8),
    )  # fmt: skip


def one_text_many_times():
    """Make a list of a thousand names that all refer to one text of 4 MiB."""

    def make(path):
        shutil.copy(DATA / f"{FLAT}.h5", path)
        with h5py.File(path, "r+") as file:
            names = np.array(["A" * 2**22, *["B"] * 1000], object)
            file["model_weights"].attrs.create("layer_names", names, dtype=h5py.string_dtype())
        content = bytearray(path.read_bytes())
        long, short = struct.pack("<I", 2**22), struct.pack("<I", 1)
        at = content.find(long)
        while content[at + 16 : at + 20] != short:  # find the list of references
            at = content.find(long, at + 1)
        content[at : at + 16 * 1001] = content[at : at + 16] * 1001
        path.write_bytes(content)

    return make, "h5"


def narrow_addresses():
    """Make a file whose addresses are half as wide as Keras writes them."""

    def make(path):
        creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
        creation.set_sizes(4, 4)
        h5py.h5f.create(str(path).encode(), h5py.h5f.ACC_TRUNC, fcpl=creation).close()

    return make, "h5"


def packed(method, said):
    """Make an archive whose configuration is 128 MiB of zeros but claims *said* bytes."""
    size = 2**27 - 12_345

    def make(path):
        members = zip_members()
        del members["config.json"]
        write_zip(path, members)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(zipfile.ZipInfo("config.json"), bytes(size), method)
        true, content = struct.pack("<I", size), path.read_bytes()
        assert content.count(true) == 2
        path.write_bytes(content.replace(true, struct.pack("<I", said)))

    return make, "keras"


def symbolic_link():
    def make(path):
        members = zip_members()
        link = zipfile.ZipInfo("config.json")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        del members["config.json"]
        write_zip(path, members)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(link, "/etc/passwd")

    return make, "keras"


def renamed_members(prefix):
    return lambda path: write_zip(
        path, {f"{prefix}{name}": each for name, each in zip_members().items()}
    ), "keras"


def text(before, after):
    return with_config(lambda config: json.dumps(config).replace(before, after, 1))


def values(each, suffix):
    return with_config(lambda _: f'{{"a": [{",".join([each] * 2_050_000)}]}}', suffix=suffix)


def layers(count):
    more = [{"class_name": "ReLU", "config": {"name": f"r{i}"}} for i in range(count)]
    return with_config(lambda config: config["config"]["layers"].extend(more))


def backwards(count):
    """Make a chain of layers that are listed from the last to the first."""
    names = ["in", *(f"r{i}" for i in range(count))]
    chain = [
        {"class_name": "ReLU", "name": b, "config": {"name": b}, "inbound_nodes": [[[a, 0, 7, {}]]]}
        for a, b in pairwise(names)
    ]
    start = {"class_name": "InputLayer", "name": "in", "inbound_nodes": [],
             "config": {"name": "in", "batch_input_shape": [None, 3]}}  # fmt: skip
    config = {"name": "m", "layers": [*chain[::-1], start], "input_layers": [["in", 0, 0]],
              "output_layers": [[names[-1], 0, 0]]}  # fmt: skip
    return with_config(lambda _: {"class_name": "Functional", "config": config})


FUNCTION = {"module": "builtins", "class_name": "function", "registered_name": "function"}
CODE = {"class_name": "__lambda__", "config": {"value": ["4wEAAAA=", None, None]}}

FORGED = {
    "a type NumPy does not have": (with_file(dated), "damaged"),
    "bomb in a chunk": (with_file(bomb_in_a_chunk), "compressed, which Keras does not"),
    "chunk larger than the array": (with_file(chunk_larger_than_the_array), "compressed"),
    "another compression": (replaced(data=np.zeros(8), compression="lzf"), "h5repack"),
    "little of much": (with_file(little_of_much), "stores"),
    "one array many times": (with_file(one_array_many_times), "one object under two names"),
    "text of 4 GB": (text_of_4_gb(), "damaged .*memory"),
    "one text many times": (one_text_many_times(), "damaged .*memory"),
    "narrow addresses": (narrow_addresses(), "weights only"),
    "references for a kernel": (replaced(shape=(8,), dtype=h5py.ref_dtype), "no array"),
    "regions for a kernel": (replaced(shape=(8,), dtype=h5py.regionref_dtype), "no array"),
    "records for a kernel": (replaced(data=np.zeros(8, [("a", "f4"), ("b", "f4")])), "no array"),
    "a kernel of no shape": (replaced(data=h5py.Empty("f4")), "claims shape None"),
    "names that are no text": (with_file(lambda file: file["model_weights"].attrs.__setitem__(
        "layer_names", [b"\xff\xfe", b"lc"])), "lists a layer"),
    "bzip2": (packed(zipfile.ZIP_BZIP2, 5000), "compressed in an unknown way"),
    "LZMA": (packed(zipfile.ZIP_LZMA, 5000), "compressed in an unknown way"),
    "more than it says": (packed(zipfile.ZIP_DEFLATED, 5000), "damaged"),
    "more than 4 GB, it says": (packed(zipfile.ZIP_DEFLATED, 2**32 - 2), "claims 4,294,967,294"),
    "symbolic link": (symbolic_link(), "no JSON"),
    "absolute members": (renamed_members("/"), "0 members"),
    "members beside themselves": (renamed_members("./"), "0 members"),
    "one key twice": (text('"name": "lc"', '"name": "lc", "name": "lc"'), "one key twice"),
    "1e400": (text('"filters": 4', '"filters": 1e400'), "the number 1e400"),
    "10,000 digits": (text('"filters": 4', f'"filters": {"9" * 10_000}'), "JSON"),
    "millions of lists": (values("[]", "keras"), "more than 2,000,000 values"),
    "millions of texts": (values('"a"', "h5"), "more than 2,000,000 values"),
    "thousands of layers": (layers(4001), "more than 4,000 layers"),
    "a long chain backwards": (backwards(1500), "output 7 of 'in'"),
    "filters that are true": (local(filters=True), "filters: expected a positive integer"),
    "a window of half an element": (local(kernel_size=[0.5, 3]), "kernel_size"),
    "a negative input": (with_config(lambda config: config["config"]["layers"][0]["config"].update(
        batch_input_shape=[None, -5, 6, 3])), "Negative dimensions"),
    "a true input": (with_config(lambda config: config["config"]["layers"][0]["config"].update(
        batch_input_shape=[None, True, 6, 3])), "input of shape"),
    "another's class of our name": (
        node(class_name="Evil>Dense", registered_name="Evil>Dense"), "'Evil>Dense'"),
    "another's activation of our name": (local(activation="Evil>relu"), "'Evil>relu'"),
    "a class of builtins": (node(module="builtins", class_name="Dense"), "module 'builtins'"),
    "a builtin": (node(module="builtins", class_name="exec"), "builtins"),
    "activation of builtins": (local(activation=FUNCTION | {"config": "exec"}), "'exec'"),
    "activation with a function in it": (
        local(activation=FUNCTION | {"config": {"fn": "exec"}}), "'fn': 'exec'"),
    "attribute as an activation": (local(activation="__class__"), "__class__"),
    "code as an initialiser": (local(kernel_initializer=CODE), "__lambda__"),
    "code in an initialiser": (
        local(bias_initializer={"class_name": "Constant", "config": {"value": CODE}}), "plain"),
    "function as an initialiser": (
        local(kernel_initializer=FUNCTION | {"config": "<lambda>"}), "'function'"),
    "name that drives a terminal": (local(name="\x1b[2J"), "named"),
    "name that is half a character": (local(name="\ud800"), "named"),
}  # fmt: skip


@pytest.mark.parametrize("what", in_turn(FORGED))
def test_refused(what, tmp_path, monkeypatch):
    for _ in range(3):  # other work of the machine can make a run too slow, so it is repeated
        _, seconds = refused(FORGED[what], MOST_GROWTH, tmp_path, monkeypatch)
        if seconds < MOST_SECONDS:
            break
    assert seconds < MOST_SECONDS


def test_a_class_of_your_own_is_found_by_its_name_alone(tmp_path):
    import keras

    class Dense(keras.layers.Dense):
        def call(self, inputs):
            return -super().call(inputs)

    (make, suffix), _ = FORGED["another's class of our name"]
    make(tmp_path / f"file.{suffix}")
    made = lcmulti_keras.load_legacy_model(
        tmp_path / f"file.{suffix}", custom_objects={"Dense": Dense}, compile=False
    )
    assert isinstance(made.layers[-1], Dense)
