"""Files of weights: what any framework writes can be read, and nothing else is read."""

from __future__ import annotations

import json

import numpy as np
import pytest

safetensors = pytest.importorskip("safetensors.numpy")

from helpers_weights import SPEC, arrays  # noqa: E402

import lcmulti  # noqa: E402
from lcmulti import plugins  # noqa: E402
from lcmulti.errors import (  # noqa: E402
    ArgumentError,
    ArgumentTypeError,
    DtypeError,
    FileError,
    ShapeError,
)
from lcmulti.weights import format as weights_format  # noqa: E402
from lcmulti.weights.file import Weights, save_layers  # noqa: E402


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64"])
def test_round_trip(path, dtype):
    kernel, bias = arrays(dtype=dtype)
    lcmulti.save_weights(path, kernel, bias, spec=SPEC)
    for spec in (None, SPEC):
        loaded = lcmulti.load_weights(path, spec)
        np.testing.assert_array_equal(loaded.kernel, kernel)
        np.testing.assert_array_equal(loaded.bias, bias)
        assert loaded.kernel.dtype == kernel.dtype
        assert loaded.spec == SPEC
        assert not loaded.transposed
    lcmulti.save_weights(path, kernel, spec=SPEC)
    assert lcmulti.load_weights(path).bias is None


def test_round_trip_of_bfloat16(path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    kernel, bias = arrays(dtype=ml_dtypes.bfloat16)
    lcmulti.save_weights(path, kernel, bias, spec=SPEC)
    loaded = lcmulti.load_weights(path)
    assert loaded.kernel.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(loaded.kernel, kernel)


def test_arrays_of_every_backend_both_ways(path, backend):
    owner = plugins.load_backend(backend)
    kernel, bias = arrays()
    lcmulti.save_weights(path, owner.from_numpy(kernel), owner.from_numpy(bias), spec=SPEC)
    np.testing.assert_array_equal(lcmulti.load_weights(path).kernel, kernel)
    loaded = lcmulti.load_weights(path, backend=backend)
    np.testing.assert_array_equal(owner.to_numpy(loaded.kernel), kernel)
    assert type(loaded.kernel) is type(owner.from_numpy(kernel))


def test_transposed_shared_and_strided_weights(path):
    spec = lcmulti.transposed_spec((4, 3), 5, 3, strides=2)
    kernel = np.ones(spec.kernel_shape)[::-1]
    kernel = np.asarray(kernel.transpose(), order="C").transpose()  # not in memory order
    kernel = kernel * np.arange(kernel.size).reshape(kernel.shape)
    lcmulti.save_weights(path, kernel, np.ones((9, 5)), spec=spec, transposed=True)
    loaded = lcmulti.load_weights(path)
    assert loaded.transposed
    np.testing.assert_array_equal(loaded.kernel, kernel)
    shared = SPEC.sharing((0,))
    lcmulti.save_weights(path, *arrays(shared), spec=shared)
    assert lcmulti.load_weights(path).spec.shared_axes == (0,)
    lcmulti.save_weights(path, arrays()[0], np.ones((1, 1, 6)), spec=SPEC)  # one bias a channel
    assert lcmulti.load_weights(path).bias.shape == (1, 1, 6)


def test_several_layers_in_one_file(path):
    plain, shared = (
        Weights(*arrays(spec, seed=seed), spec, False)
        for seed, spec in enumerate((SPEC, SPEC.sharing((0,))))
    )
    save_layers(path, {"first": plain, "block.spec": shared})
    for name, weights in (("first", plain), ("block.spec", shared)):
        loaded = lcmulti.load_weights(path, layer=name)
        np.testing.assert_array_equal(loaded.kernel, weights.kernel)
        np.testing.assert_array_equal(loaded.bias, weights.bias)
        assert loaded.spec == weights.spec
    for layer in (None, "second", ""):
        with pytest.raises(ArgumentError) as caught:
            lcmulti.load_weights(path, layer=layer)
        shown = f"layer: expected one of the layers of {path}: 'block.spec', 'first', got {layer!r}"
        assert str(caught.value) == shown
    save_layers(path, {"first": plain})
    assert lcmulti.load_weights(path).spec == SPEC  # the only layer in the file


def test_others_can_read_the_file(path):
    kernel, bias = arrays()
    lcmulti.save_weights(path, kernel, bias, spec=SPEC)
    np.testing.assert_array_equal(safetensors.load_file(path)["kernel"], kernel)
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    assert metadata["version"] == "1"
    assert json.loads(metadata["spec"])["kernel_size"] == [3, 2]


def test_only_the_data_format_may_differ(path):
    lcmulti.save_weights(path, *arrays(), spec=SPEC)
    other = lcmulti.LocalConvSpec(
        (4, 7, 6), 6, (3, 2), strides=(2, 1), padding=((1, 0), (0, 2)), padding_mode="reflect",
        dilation=(1, 2), groups=2, data_format="channels_first",
    )  # fmt: skip
    assert lcmulti.load_weights(path, other).spec == other


def test_another_geometry_is_an_error_that_names_both(path):
    lcmulti.save_weights(path, *arrays(), spec=SPEC)
    other = lcmulti.LocalConvSpec((9, 6, 4), 6, (3, 2), groups=2, data_format="channels_last")
    with pytest.raises(FileError) as caught:
        lcmulti.load_weights(path, other)
    message = str(caught.value)
    assert message.startswith(f"{path} is refused: expected weights for input_size=(9, 6)")
    assert "got weights for input_size=(7, 6)" in message
    assert "padding_mode='reflect'" in message
    assert "groups" not in message  # in both the same


def test_wrong_arguments_write_nothing(path):
    kernel, bias = arrays()
    for wrong, error in [
        (dict(kernel=kernel[1:]), ShapeError),
        (dict(bias=bias[1:]), ShapeError),
        (dict(bias=bias[..., 0]), ShapeError),
        (dict(spec=(7, 6, 4)), ArgumentTypeError),
        (dict(kernel=kernel.astype("complex128")), DtypeError),
        (dict(kernel=kernel.tolist()), ArgumentTypeError),
        (dict(path=path.parent / "nowhere" / "w"), FileError),
    ]:
        with pytest.raises(error):
            lcmulti.save_weights(**(dict(path=path, kernel=kernel, bias=bias, spec=SPEC) | wrong))
    assert list(path.parent.iterdir()) == []


def test_a_failed_save_leaves_the_old_file(path, monkeypatch):
    lcmulti.save_weights(path, *arrays(), spec=SPEC)
    before = path.read_bytes()

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(type(path), "replace", full)
    with pytest.raises(FileError, match=r"cannot be written \(no space left"):
        lcmulti.save_weights(path, *arrays(seed=1), spec=SPEC)
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 1


def metadata(**changes):
    spec = {name: getattr(SPEC, name) for name in weights_format.GEOMETRY}
    given = {
        "format": "lcmulti.weights", "version": "1", "operation": "local_conv",
        "spec": json.dumps(spec),
    }  # fmt: skip
    return {k: v for k, v in (given | changes).items() if v is not None}


def spec_json(**changes):
    spec = {name: getattr(SPEC, name) for name in weights_format.GEOMETRY}
    return json.dumps(spec | changes)


HOSTILE = {
    "no metadata": dict(metadata={}),
    "another format": dict(metadata=metadata(format="pt")),
    "a version to come": dict(metadata=metadata(version="2")),
    "no version": dict(metadata=metadata(version=None)),
    "another operation": dict(metadata=metadata(operation="system")),
    "no spec": dict(metadata=metadata(spec=None)),
    "spec that is no JSON": dict(metadata=metadata(spec="{")),
    "spec that is a list": dict(metadata=metadata(spec="[]")),
    "deep JSON": dict(metadata=metadata(spec="[" * 100_000)),
    "a long number": dict(metadata=metadata(spec='{"filters": ' + "9" * 10_000 + "}")),
    "a field more": dict(metadata=metadata(spec=spec_json(run="rm"))),
    "NaN": dict(metadata=metadata(spec=spec_json(filters=float("nan")))),
    "no filters": dict(metadata=metadata(spec=spec_json(filters=0))),
    "a huge geometry": dict(metadata=metadata(spec=spec_json(filters=2**60))),
    "text for a number": dict(metadata=metadata(spec=spec_json(strides="many"))),
    "another kernel": dict(tensors={"kernel": np.ones(3)}),
    "another bias": dict(tensors={"kernel": arrays()[0], "bias": np.ones(3)}),
    "no kernel": dict(tensors={"bias": arrays()[1]}),
    "a tensor more": dict(tensors={"kernel": arrays()[0], "more": np.ones(3)}),
    "a layer without tensors": dict(metadata=metadata() | {"more.spec": spec_json()}),
    "a name of nothing but a point": dict(
        metadata={"." + n if n == "spec" else n: v for n, v in metadata().items()}
    ),
    "integers": dict(tensors={"kernel": arrays()[0].astype("int32")}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(path, name):
    given = {"tensors": {"kernel": arrays()[0]}, "metadata": metadata()} | HOSTILE[name]
    safetensors.save_file(given["tensors"], path, given["metadata"])
    with pytest.raises(FileError) as caught:
        lcmulti.load_weights(path)
    assert str(caught.value).startswith(f"{path} is refused: expected ")


def test_the_frame_of_the_hostile_files_is_sound(path):
    safetensors.save_file({"kernel": arrays()[0]}, path, metadata())
    assert lcmulti.load_weights(path).spec == SPEC


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 a zip",
        b"\xff" * 64,
        (2**40).to_bytes(8, "little") + b"{}",
        (60).to_bytes(8, "little")
        + b'{"kernel":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'[:60],
    ],
    ids=["empty", "zip", "all ones", "header beyond the file", "data beyond the file"],
)
def test_broken_files_are_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(FileError, match="is refused: expected a readable safetensors file"):
        lcmulti.load_weights(path)


def test_a_missing_file_and_a_folder(path):
    for wrong, reason in ((path, "cannot be read"), (path.parent, "is a directory, not a file")):
        with pytest.raises(FileError, match=reason):
            lcmulti.load_weights(wrong)


def test_every_byte_cut_off_is_noticed(path):
    lcmulti.save_weights(path, *arrays(), spec=SPEC)
    whole = path.read_bytes()
    for length in range(0, len(whole), 997):
        path.write_bytes(whole[:length])
        with pytest.raises(FileError):
            lcmulti.load_weights(path)
