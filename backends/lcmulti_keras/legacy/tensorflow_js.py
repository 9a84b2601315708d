"""Read a layers model of TensorFlow.js: ``model.json``, and files of numbers beside it.

The JSON names the files. A name must be a plain file name, not a path, and the file must be beside
the JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from lcmulti.errors import FileError, printable
from lcmulti.files import file_size, opened_file
from lcmulti_keras.legacy.stored import Archive, FileArray, Folder

__all__ = ["is_tensorflow_js", "read_tensorflow_js"]

PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}", re.ASCII)
DTYPES = {"float32": "<f4", "int32": "<i4", "bool": "|b1", "uint8": "|u1"}
MOST_SHARDS = 2_000
MOST_WEIGHTS = 25_000
MOST_RANK = 32


def is_tensorflow_js(content: dict[str, Any]) -> bool:
    """Whether parsed JSON describes a model of TensorFlow.js."""
    return "modelTopology" in content or "weightsManifest" in content


def read_tensorflow_js(path: Path, content: dict[str, Any], stack: ExitStack) -> Archive:
    """Read the model. Its arrays stay in their files, which are open as long as *stack*.

    Raises
    ------
    FileError
        If it is a graph model or quantised, or if a file is missing or has another size than its
        arrays.
    """
    topology = content.get("modelTopology")
    if content.get("format") == "graph-model" or not isinstance(topology, dict):
        raise FileError(path, "is a graph model of TensorFlow.js, of which no layers are known")
    config = topology.get("model_config", topology)
    if not isinstance(config, dict):
        raise FileError(path, "has no architecture of layers")
    arrays = list(_arrays(path, content.get("weightsManifest"), stack))
    return Archive(
        {key: each for key, each in config.items() if key in ("class_name", "config")},
        topology.get("training_config"),
        printable(topology.get("keras_version", "unknown"), 20),
        _by_layer(path, config, arrays),
        by_path=False,
        has_optimizer=False,
    )


def _arrays(path: Path, manifest: Any, stack: ExitStack) -> Iterator[tuple[str, FileArray]]:
    groups = manifest if isinstance(manifest, list) else None
    if groups is None or not all(isinstance(each, dict) for each in groups):
        raise FileError(path, "has no list of weights")
    names = [name for group in groups for name in _list(path, group, "paths")]
    if len(names) > MOST_SHARDS or len(set(map(str, names))) < len(names):
        raise FileError(path, f"names {len(names):,} files of weights, or one twice")
    for group in groups:
        shards = [_shard(path, name, stack) for name in _list(path, group, "paths")]
        weights = [_described(path, each) for each in _list(path, group, "weights")]
        if len(weights) > MOST_WEIGHTS:
            raise FileError(path, f"has more than {MOST_WEIGHTS:,} weights")
        needed = sum(dtype.itemsize * prod(shape) for _, dtype, shape in weights)
        stored = sum(map(file_size, shards))
        if needed != stored:
            raise FileError(path, f"has weights of {needed:,} bytes in files of {stored:,}")
        start = 0
        for name, dtype, shape in weights:
            yield name, _Joined(dtype, shape, shards=tuple(shards), start=start)
            start += dtype.itemsize * prod(shape)


def _list(path: Path, group: dict[str, Any], key: str) -> list[Any]:
    value = group.get(key)
    if not isinstance(value, list):
        raise FileError(path, f"has no list of {key!r} in its list of weights")
    return value


def _shard(path: Path, name: Any, stack: ExitStack) -> Any:
    if not isinstance(name, str) or not PLAIN_NAME.fullmatch(name):
        raise FileError(path, f"names a file {name!r:.80}, which is no plain name beside it")
    return stack.enter_context(opened_file(path.parent / name))


def _described(path: Path, about: Any) -> tuple[str, np.dtype[Any], tuple[int, ...]]:
    name, shape = (about.get("name"), about.get("shape")) if isinstance(about, dict) else (0, 0)
    if not isinstance(name, str) or len(name) > 1000 or not isinstance(shape, list):
        raise FileError(path, "has a weight without a name or a shape")
    if about.get("quantization"):
        raise FileError(
            path, "has quantised weights, which are not the model's own; convert it from the "
            "original without quantisation"
        )  # fmt: skip
    if about.get("dtype") not in DTYPES:
        raise FileError(path, f"has weights of dtype {about.get('dtype')!r:.40}")
    if len(shape) > MOST_RANK or not all(type(n) is int and 0 <= n < 2**48 for n in shape):
        raise FileError(path, f"has a weight of shape {shape!r:.80}")
    return name, np.dtype(DTYPES[about["dtype"]]), tuple(shape)


@dataclass(frozen=True)
class _Joined(FileArray):
    """An array that continues through several files."""

    shards: tuple[Any, ...] = ()
    start: int = 0

    def __getitem__(self, key: tuple[()]) -> np.ndarray[Any, Any]:
        """Read the whole array."""
        array = np.empty(self.shape, self.dtype)
        left = memoryview(array.reshape(-1).view(np.uint8).data)
        skip = self.start
        for shard in self.shards:
            size = file_size(shard)
            if skip < size and left:
                part = left[: size - skip]
                shard.seek(skip)
                if shard.readinto(part) != len(part):
                    raise FileError("", "has a file of weights that changed while it was read")
                left = left[len(part) :]
            skip = max(0, skip - size)
        result: np.ndarray[Any, Any] = array.astype(array.dtype.newbyteorder("="), copy=False)[key]
        return result


def _by_layer(path: Path, config: Any, arrays: list[tuple[str, FileArray]]) -> Folder:
    """Arrays by the layer of the model that has them, which TensorFlow.js does not tell."""
    tops = _tops(config)
    root, folders = Folder(), dict[str, Folder]()
    for name, array in arrays:
        parts = name.split("/")
        within = ("/".join(parts[: n + 1]) for n in range(min(len(parts), 8)))
        top = next((tops[each] for each in within if tops.get(each)), None)
        if top is None:
            raise FileError(path, f"has weights {name!r:.80} of no layer of the model, or several")
        if top not in folders:
            folders[top] = Folder({"weight_names": []})
            root.add(top, folders[top])
        folders[top].attrs["weight_names"].append(name)
        folders[top].add(name, array)
    root.attrs["layer_names"] = list(folders)
    return root


def _tops(config: Any) -> dict[str, str | None]:
    """For the name of each layer, at any depth, the layer of the model that contains it."""
    found: dict[str, str | None] = {}
    for top in _layers(config):
        pending, name = [top], _name(top)
        while pending:
            each = pending.pop()
            inner = _name(each)
            if inner is not None:
                known = found.setdefault(inner, name)
                if known != name:
                    found[inner] = None
            pending += _layers(each)
    for top in _layers(config):  # names of the model's own layers take precedence
        if (name := _name(top)) is not None:
            found[name] = name
    return found


def _layers(node: Any) -> list[Any]:
    config = node.get("config") if isinstance(node, dict) else None
    if isinstance(config, list):
        return config
    if not isinstance(config, dict):
        return []
    layers = config.get("layers")
    inner = config.get("layer")
    return (layers if isinstance(layers, list) else []) + ([inner] if inner else [])


def _name(node: Any) -> str | None:
    config = node.get("config") if isinstance(node, dict) else None
    own = node.get("name") if isinstance(node, dict) else None
    name = config.get("name") if isinstance(config, dict) else own
    return name if isinstance(name, str) else None
