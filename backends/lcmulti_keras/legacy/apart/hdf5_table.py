"""Say what an HDF5 file holds: names, shapes, and at which byte each array begins.

Run by `run_apart`, with the file as standard input. Reads no array, so that what HDF5 makes of
the file decides nothing but where the bytes are that are read as numbers.
"""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from math import prod
from pathlib import Path
from typing import NamedTuple

told = json.loads(sys.argv[1])
sys.path[:] = [*told["path"], str(Path(__file__).parent)]

import h5py  # noqa: E402
import numpy as np  # noqa: E402
from limits import set_limits  # noqa: E402

MOST_OBJECTS = 25_000
"""Groups and arrays, and names that attributes list."""
MOST_NAME = 1_000
MOST_ATTRIBUTES = 200
MOST_DEPTH = 60
MOST_CHUNKS = 10_000
ATTRIBUTES = re.compile(
    r"(model_config|training_config|keras_version|backend|(layer_names|weight_names)\d*)", re.ASCII
)
"""All that are read."""


class RefusedError(Exception):
    """Why a file is not read, as the rest of a sentence that begins with it."""


class Link(NamedTuple):
    """What kind of link a name is, and the address it leads to."""

    type: int
    u: int


class Part:
    """A part of standard input as a file of its own."""

    def __init__(self, start, size):
        self.stream, self.start, self.size, self.at = sys.stdin.buffer, start, size, 0

    def seek(self, at, whence=0):
        """Go to a byte, counted as by other files."""
        self.at = max(0, at + (0, self.at, self.size)[whence])
        return self.at

    def tell(self):
        """The byte that would be read next."""
        return self.at

    def readinto(self, target):
        """Fill *target* as far as the file goes."""
        self.stream.seek(self.start + self.at)
        n = max(0, min(len(target), self.size - self.at))
        n = self.stream.readinto(memoryview(target)[:n])
        self.at += n
        return n

    def read(self, n=-1):
        """The next bytes, or all the rest."""
        left = max(0, self.size - self.at)
        content = bytearray(left if n < 0 else min(n, left))
        return bytes(content[: self.readinto(content)])


def table(file):
    """Each group with the attributes that are read, and each array with its place."""
    seen = {h5py.h5o.get_info(file.id).addr}
    pending = [(file.id, "", 0)]
    named = 0
    while pending:
        group, path, depth = pending.pop()
        if depth > MOST_DEPTH:
            raise RefusedError(f"has groups nested deeper than {MOST_DEPTH}")
        found = attributes(group, path)
        named += sum(len(each) for each in found.values() if isinstance(each, list))
        if named > MOST_OBJECTS:
            raise RefusedError(f"has lists of more than {MOST_OBJECTS:,} names")
        yield path, found
        for name, link in members(group, path, MOST_OBJECTS - len(seen)):
            inner = f"{path}/{name.decode()}" if path else name.decode()
            if link.type != h5py.h5l.TYPE_HARD:
                raise RefusedError(f"has a soft or external link, {inner!r:.80}")
            if link.u in seen:
                raise RefusedError(f"has one object under two names, {inner!r:.80}")
            seen.add(link.u)
            low = h5py.h5o.open(group, name)
            if isinstance(low, h5py.h5g.GroupID):
                pending.append((low, inner, depth + 1))
            elif isinstance(low, h5py.h5d.DatasetID):
                yield inner, array(low, inner)
            else:
                raise RefusedError(f"has {inner!r:.80}, which is neither a group nor a dataset")


def members(group, path, most):
    """Names in a group and what they lead to; they are counted while HDF5 lists them."""
    found = []

    def note(name, link):  # HDF5 calls this, and any value but None stops it
        found.append((name, Link(link.type, link.u)))
        return name if len(found) > most or len(name) > MOST_NAME else None

    group.links.iterate(note, info=True)
    if len(found) > most:
        raise RefusedError(f"has more than {MOST_OBJECTS:,} objects")
    if found and len(found[-1][0]) > MOST_NAME:
        raise RefusedError(f"has a name of {len(found[-1][0]):,} bytes in {path!r:.80}")
    return found


def attributes(group, path):
    """What is read of a group beside its members."""
    count = h5py.h5a.get_num_attrs(group)
    if count > MOST_ATTRIBUTES:
        raise RefusedError(f"has {count:,} attributes at {path!r:.80}")
    if not count:
        return {}
    found = []
    h5py.h5a.iterate(group, lambda name, *_: found.append(name.decode("utf-8", "replace")))
    values = h5py.Group(group).attrs
    return {name: texts(values[name], name) for name in found if ATTRIBUTES.fullmatch(name)}


def texts(value, name):
    """A text, or a list of texts."""
    if isinstance(value, (str, bytes)):
        return value.decode() if isinstance(value, bytes) else value
    if not isinstance(value, np.ndarray) or (value.size and value.dtype.kind not in "OS"):
        raise RefusedError(f"has {name!r} that are no names")
    if value.size > MOST_OBJECTS:
        raise RefusedError(f"has {value.size:,} names in {name!r}")
    return [texts(each, name) for each in value.ravel().tolist()]


def array(dataset, name):
    """Type, shape and place of an array; of what is no array of numbers, no type."""
    creation = dataset.get_create_plist()
    layout = creation.get_layout()
    if creation.get_external_count() or layout == h5py.h5d.VIRTUAL:
        raise RefusedError(f"has {name!r:.80} stored outside the file")
    stored_type, shape = dataset.get_type(), dataset.shape
    dtype = stored_type.dtype
    if dtype.kind not in "fiub" or dtype.hasobject:
        return {"dtype": "", "shape": ()}  # a table of strings: never read
    if creation.get_nfilters():
        undo = "Keras does not; undo it with: h5repack -f NONE OLD NEW"
        raise RefusedError(f"has {name!r:.80} compressed, which {undo}")
    if dataset.get_space().get_simple_extent_type() == h5py.h5s.NULL:
        raise RefusedError(f"claims shape None for {name!r:.80}")
    # HDF5 converts numbers that NumPy has no type for, and bytes would not be what they seem.
    if not type_of(dtype).equal(stored_type):
        raise RefusedError(f"has numbers of an unusual form in {name!r:.80}")
    stored = dataset.get_storage_size()
    needed = prod(shape) * dtype.itemsize
    if needed > stored:
        raise RefusedError(f"claims shape {shape} for {name!r:.80} but stores {stored:,} bytes")
    found = {"dtype": dtype.str, "shape": shape}
    if not needed:
        return found
    if layout == h5py.h5d.CONTIGUOUS:
        return found | {"at": dataset.get_offset()}
    if layout == h5py.h5d.COMPACT:
        return found | {"content": h5py.Dataset(dataset)[()].tobytes().hex()}
    return found | {"chunk": creation.get_chunk(), "chunks": chunks(dataset, name)}


@cache
def type_of(dtype):
    """HDF5's type of NumPy's."""
    return h5py.h5t.py_create(dtype, logical=True)


def chunks(dataset, name):
    """Where each chunk begins: in the array, and in the file."""
    found = []

    def note(chunk):
        found.append([list(map(int, chunk.chunk_offset)), chunk.byte_offset])
        return True if len(found) > MOST_CHUNKS else None

    dataset.chunk_iter(note)
    if len(found) > MOST_CHUNKS:
        raise RefusedError(f"has {name!r:.80} in more than {MOST_CHUNKS:,} pieces")
    return found


def main():
    """Answer on standard output, or end with an error that says nothing."""
    set_limits(told["memory"], told["seconds"])
    last = "end"
    try:
        with h5py.File(Part(told["start"], told["size"]), "r") as file:
            if file.userblock_size:
                raise RefusedError("has other content before what HDF5 reads")
            for each in table(file):
                say(each)
    except RefusedError as error:
        last = {"refused": str(error)}
    except Exception as error:
        last = {"refused": f"is damaged ({type(error).__name__}: {error!s:.300})"}
    say(last)


def say(what):
    """One line of the answer."""
    sys.stdout.write(f"{json.dumps(what)}\n")


main()
