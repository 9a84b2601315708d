"""The arrays of an old file, by layer and name or by path.

``.h5`` files have a list of arrays for each layer of the model, with names from Keras 2. ``.keras``
and ``.weights.h5`` files have the arrays of each layer at the path of attributes that leads to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from lcmulti.errors import FileError
from lcmulti_keras.legacy.matches import Stored
from lcmulti_keras.legacy.names import parted
from lcmulti_keras.legacy.stored import Archive, FileArray, Folder

__all__ = ["Array", "Group", "groups", "paths"]

OF_MODEL = "top_level_model_weights"
RANDOM_STATE = "StateVar"
OF_METRICS = {"total", "count"}
NO_WEIGHTS = ("optimizer", "_optimizer", "metrics", "random_generator", "_random_generator")


@dataclass(frozen=True)
class Array:
    """An array of a layer.

    Parameters
    ----------
    name : str
        Name in Keras 2, ``"inner/lc/kernel:0"``.
    stored : Stored
    """

    name: str
    stored: Stored

    @property
    def scope(self) -> str:
        """The name without its last part."""
        return parted(self.name)[0]

    @property
    def tail(self) -> str:
        """The last part of the name, ``"kernel"``."""
        return parted(self.name)[1]


@dataclass(frozen=True)
class Group:
    """The arrays of one layer of the model; without a name, those of the model itself.

    Parameters
    ----------
    name : str
    arrays : tuple of Array
    """

    name: str
    arrays: tuple[Array, ...]


def groups(archive: Archive) -> list[Group]:
    """Layers with arrays, in the order of the file, without metrics and random states."""
    assert archive.weights is not None  # asked only of a file with weights
    found = []
    names = archive.strings(archive.weights, "layer_names")
    for name in (*names, *({OF_MODEL} & set(archive.weights))):
        group = archive.weights.get(name)
        if not isinstance(group, Folder):
            raise FileError("", f"lists a layer {name!r:.80} and does not have it")
        listed = []
        for each in archive.strings(group, "weight_names"):
            if parted(each)[1].startswith(RANDOM_STATE):
                continue
            stored = group.get(each)
            if not isinstance(stored, FileArray):
                raise FileError("", f"has no array {each!r:.80}, which it lists")
            listed.append(Array(each, stored))
        if listed:
            found.append(Group("" if name == OF_MODEL else name, tuple(listed)))
    return found


def paths(archive: Archive) -> dict[str, Stored]:
    """Arrays by path, without those of optimizers, metrics and random states."""
    assert archive.weights is not None  # asked only of a file with weights
    return {
        path: each
        for path, each in archive.weights.arrays()
        if not set(path.split("/")).intersection(NO_WEIGHTS)
    }


def below(arrays: dict[str, Stored], folder: str) -> dict[str, Stored]:
    """Arrays directly in a folder, by path, in the order of their numbers."""
    found = {}
    for number in range(len(arrays)):
        path = f"{folder}/{number}"
        if path not in arrays:
            break
        found[path] = arrays[path]
    return found
