"""Read files in this process. Each other process imports h5py first, which takes as long as a load.

Only for files that the tests wrote: `test_legacy_hostile` is about the process and its limits.
"""

import contextlib
import io
import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from lcmulti_keras.legacy import apart, hdf5

LIMITS = SimpleNamespace(set_limits=lambda *_, **__: None)


def _run_here(script, path, stream, arguments, **_):
    """As `run_apart`, of a script that refuses nothing."""
    said, told = (
        io.StringIO(),
        json.dumps({"path": sys.path, "memory": 0, "seconds": 0} | arguments),
    )
    script = Path(apart.__file__).with_name(script)
    with (
        mock.patch.dict(sys.modules, limits=LIMITS),
        mock.patch.multiple(sys, argv=[str(script), told], stdin=SimpleNamespace(buffer=stream)),
        contextlib.redirect_stdout(said),
    ):
        runpy.run_path(str(script))
    *lines, last = map(json.loads, said.getvalue().splitlines())
    assert last == "end", last
    return lines


def read_here():
    """Have this process read files, each once, however often it is loaded here."""
    known = {}

    def run_once(script, path, *arguments, **limits):
        if path not in known:
            known[path] = _run_here(script, path, *arguments, **limits)
        return known[path]

    hdf5.run_apart = run_once
