"""Write what was read of a stranger's file to a file of our own, for tf_keras to open.

No other program is given the stranger's file: a file may be one thing to this reader and another
to the next. The copy has the architecture, each class and module in it looked up in the list of
what is allowed, and the arrays; nothing else that the file held.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py

from lcmulti.errors import FileError
from lcmulti_keras.legacy import allowed
from lcmulti_keras.legacy.building import POLICIES, TRUSTED_MODULE
from lcmulti_keras.legacy.stored import Archive, FileArray, Folder

__all__ = ["write_checked"]

CLASSES = {each for kind in allowed.KINDS.values() for each in kind} | set(allowed.SHORT_NAMES)
WRAPPED = ("__tuple__", "TensorShape")
KEYS = (
    "class_name", "config", "module", "registered_name", "name", "inbound_nodes", "build_config",
    "items",
)  # fmt: skip
NO_WEIGHTS = ("optimizer", "_optimizer", "metrics")


def write_checked(path: Path, archive: Archive, folder: Path) -> Path:
    """Write a copy into *folder* and return its path.

    Raises
    ------
    FileError
        If the architecture holds what is not known to be harmless, wherever it stands.
    """
    assert archive.weights is not None  # asked only of a file with weights
    config = json.dumps(_checked(path, archive.config))
    if not archive.by_path:
        copy = folder / "copy.h5"
        with h5py.File(copy, "w") as file:
            file.attrs["model_config"] = config
            file.attrs["keras_version"] = archive.version
            file.attrs["backend"] = "tensorflow"
            _fill(file.create_group("model_weights"), archive.weights)
        return copy
    copy, weights = folder / "copy.keras", folder / "weights.h5"
    with h5py.File(weights, "w") as file:
        _fill(file, archive.weights)
    with zipfile.ZipFile(copy, "w") as whole:
        whole.writestr("config.json", config)
        whole.writestr("metadata.json", json.dumps({"keras_version": archive.version}))
        whole.write(weights, "model.weights.h5")
    weights.unlink()
    return copy


def _fill(group: h5py.Group, folder: Folder) -> None:
    for name, value in folder.attrs.items():
        if name.startswith(("layer_names", "weight_names")):
            group.attrs[name] = [each.encode() for each in value]
        elif name in ("backend", "keras_version"):
            group.attrs[name] = value
    for name, member in folder.members.items():
        if isinstance(member, Folder):
            if name not in NO_WEIGHTS:
                _fill(group.create_group(name), member)
        elif isinstance(member, FileArray) and member.dtype.kind in "fiub":
            group.create_dataset(name, data=member[()])


def _checked(path: Path, value: Any) -> Any:
    """A configuration without what a reader might run, or an error."""
    if isinstance(value, list):
        return [_checked(path, each) for each in value]
    if not isinstance(value, dict):
        return value
    if "class_name" not in value:
        if "module" in value or "registered_name" in value:
            raise FileError(path, "names a module where there should be plain values")
        return {
            key: _activation(path, each) if key.endswith("activation") else _checked(path, each)
            for key, each in value.items()
        }
    name, module = value["class_name"], value.get("module")
    if name == "function":
        return _activation(path, value)
    known = isinstance(name, str) and (name in CLASSES or name in (*WRAPPED, *POLICIES))
    trusted = module is None or (isinstance(module, str) and TRUSTED_MODULE.fullmatch(module))
    if not known or not trusted or value.get("registered_name") not in (None, name):
        raise FileError(path, f"names {name!r:.80} of module {module!r:.80}")
    return {key: _checked(path, value[key]) for key in KEYS if key in value}


def _activation(path: Path, value: Any) -> Any:
    if isinstance(value, dict) and value.get("class_name") == "function":
        if value.get("module") not in (None, "builtins", "keras.activations"):
            raise FileError(path, f"names a function of module {value.get('module')!r:.80}")
        value = value.get("config")
    elif isinstance(value, dict):
        return _checked(path, value)
    if value not in (None, *allowed.ACTIVATIONS, "softmax_v2"):
        raise FileError(path, f"names the activation {value!r:.80}")
    return value
