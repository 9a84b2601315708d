"""Read a TensorFlow checkpoint, which `save_weights` of TensorFlow 2 writes by default.

``NAME.index`` says what there is, ``NAME.data-00000-of-00001`` has the numbers. TensorFlow's own
reader reads both, in a process of its own, so TensorFlow must be installed.
"""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from lcmulti.errors import FileError
from lcmulti.files import file_size, opened_file
from lcmulti_keras.legacy.apart import MEBIBYTE, run_apart
from lcmulti_keras.legacy.checkpoint_index import is_whole
from lcmulti_keras.legacy.stored import Archive, FileArray, Folder

__all__ = ["Node", "is_checkpoint", "read_checkpoint"]

DATA = re.compile(r"(.+)\.data-(\d{5})-of-(\d{5})", re.DOTALL)
MOST_INDEX = 16 * MEBIBYTE
MOST_SHARDS = 64
MEMORY = 512 * MEBIBYTE


@dataclass(frozen=True)
class Node:
    """An object of the program that wrote a checkpoint.

    Parameters
    ----------
    children : dict of str to int
        Numbers of the objects it had as attributes or in a list, by name.
    key : str or None
        Of a variable: the name of its array.
    """

    children: dict[str, int]
    key: str | None


def is_checkpoint(path: Path) -> bool:
    """Whether a path is that of a checkpoint: its index, its data, or both names' beginning."""
    name = path.name
    if name.endswith(".index") or DATA.fullmatch(name):
        return True
    return _exists(f"{path}.index") and not _exists(path)


def _exists(path: str | Path) -> bool:
    try:
        return Path(path).is_file()
    except OSError:  # too long, or in a folder that may not be entered
        return False


def read_checkpoint(path: Path, stack: ExitStack) -> Archive:
    """The arrays of a checkpoint and the objects they belonged to.

    Raises
    ------
    FileError
        If it is damaged, claims more than it stores, or TensorFlow is not installed.
    """
    data = DATA.fullmatch(path.name)
    prefix = path.with_name(data[1] if data else path.name.removesuffix(".index"))
    with opened_file(f"{prefix}.index") as index:
        content = index.read(MOST_INDEX + 1)
    if len(content) > MOST_INDEX or not is_whole(content):
        raise FileError(path, "is no index of a TensorFlow checkpoint, or a damaged one")
    stored = _stored(path, prefix)
    if find_spec("tensorflow") is None:
        raise FileError(
            path, "is a TensorFlow checkpoint, which TensorFlow alone reads; install it with: "
            "pip install 'lcmulti[tensorflow]'"
        )  # fmt: skip
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    arrays = Path(folder, "arrays")
    told = {"prefix": os.path.abspath(prefix), "arrays": str(arrays), "most": stored}  # noqa: PTH100
    with opened_file(f"{prefix}.index") as index:
        answer = run_apart(
            "checkpoint_table.py", path, index, told,
            memory=MEMORY + 3 * stored, seconds=4 + stored // (50 * MEBIBYTE),
        )  # fmt: skip
        graph = [Node(dict(children), key) for children, key in next(answer)]
        described = list(answer)
    root = Folder()
    stream = stack.enter_context(opened_file(arrays))
    for name, kind, shape, at in described:
        dtype = np.dtype(kind)
        if dtype.kind not in "fiub" or at + prod(shape) * dtype.itemsize > file_size(stream):
            continue  # a text, or a table of them
        where = ((0,) * len(shape), at)
        root.members[name] = FileArray(dtype, tuple(shape), stream, (where,), tuple(shape))
    return Archive(None, None, "2", root, by_path=False, has_optimizer=False, graph=graph)


def _stored(path: Path, prefix: Path) -> int:
    """Bytes in the files of numbers, all of which must be there."""
    first = f"{prefix.name}.data-00000-of-"
    counts = {int(each.name[-5:]) for each in prefix.parent.glob("*") if each.name.startswith(first)
              and DATA.fullmatch(each.name)}  # fmt: skip
    if len(counts) != 1 or not 0 < (count := counts.pop()) <= MOST_SHARDS:
        raise FileError(path, "is the index of a checkpoint whose file of numbers is not beside it")
    total = 0
    for number in range(count):
        with opened_file(f"{prefix}.data-{number:05}-of-{count:05}") as stream:
            total += file_size(stream)
    return total


def unused(graph: list[Node], root: int, used: set[str]) -> list[str]:
    """Keys of variables below an object that are not among *used*, but for optimizers'."""
    found: dict[str, None] = {}
    pending: list[Any] = [root]
    seen = {root}
    while pending:
        node = graph[pending.pop()]
        if node.key is not None and node.key not in used:
            found[node.key] = None
        for name, child in node.children.items():
            if child not in seen and not name.startswith(("optimizer", "keras_api", "_")):
                seen.add(child)
                pending.append(child)
    return [each for each in found if not each.startswith(("save_counter", "optimizer"))]
