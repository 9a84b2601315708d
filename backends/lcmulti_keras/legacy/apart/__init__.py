"""Run a large foreign parser on a stranger's file in a process of its own, under limits.

HDF5 and TensorFlow read files in C, and a damaged file makes them crash, loop or take all memory:
of 15,000 copies of Keras' own files with a few bytes changed, HDF5 1.14 did one of these in 25.
In a process of its own that is one more way to say that a file is damaged. What such a process
says is checked as the file itself would be.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lcmulti.errors import FileError

__all__ = ["run_apart"]

MEBIBYTE = 2**20
SECONDS = 3
"""Of computing; a sound file of 2,000 layers takes one."""
MOST_SAID = 64 * MEBIBYTE
OVERTIME = 15
"""Times as long it may take where other work keeps the processor."""


def run_apart(
    script: str,
    path: Path,
    stream: BinaryIO,
    arguments: dict[str, Any],
    *,
    memory: int,
    seconds: int = SECONDS,
) -> Iterator[Any]:
    """What a script of this folder says of a file.

    Parameters
    ----------
    script : str
        Name of the file beside this one.
    path : Path
        For messages.
    stream : binary file
        The process' standard input.
    arguments : dict
        For the script; JSON.
    memory : int
        Bytes it may take beyond what it has when its modules are imported.
    seconds : int
        Of computing after that.

    Yields
    ------
    object
        Each line it prints, which is JSON.

    Raises
    ------
    FileError
        If the script refuses the file, crashes on it, or exceeds a limit.
    """
    told = {"path": sys.path, "memory": memory, "seconds": seconds} | arguments
    # Isolated, so that nothing in the current folder is imported; the path is then told.
    command = [sys.executable, "-I", str(Path(__file__).with_name(script)), json.dumps(told)]
    process = subprocess.Popen(
        command, stdin=stream, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    watch = threading.Timer(OVERTIME * seconds, process.kill)
    watch.start()
    assert process.stdout is not None
    left, said = MOST_SAID, None
    try:
        while (line := process.stdout.readline(left)).endswith(b"\n"):
            left -= len(line)
            said = json.loads(line)
            if said == "end":
                return
            if isinstance(said, dict):
                raise FileError(path, str(said["refused"]))
            yield said
    finally:
        watch.cancel()
        if said != "end":
            process.kill()
        process.communicate()
    raise FileError(path, f"is damaged, or made to do harm: {_end(process.returncode)}")


def _end(code: int) -> str:
    reading = "the process that read it"
    if code in (-getattr(signal, "SIGXCPU", 24), -getattr(signal, "SIGKILL", 9)):
        return f"{reading} came to no end"
    if code < 0:
        return f"{reading} crashed"
    return f"{reading} gave up"
