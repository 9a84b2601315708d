"""Run a third-party parser on an untrusted file in another process, under limits.

HDF5 and TensorFlow read files in C. A damaged file can make them crash, loop or take all memory:
HDF5 1.14 did so for 25 of 15,000 copies of Keras' own files with a few changed bytes. In another
process, this only means that the file is damaged. The output of that process is checked as
carefully as the file itself.
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
"""Seconds of computing; a sound file of 2,000 layers takes one."""
MOST_SAID = 64 * MEBIBYTE
OVERTIME = 15
"""Factor for the elapsed time, because other work may use the processor."""


def run_apart(
    script: str,
    path: Path,
    stream: BinaryIO,
    arguments: dict[str, Any],
    *,
    memory: int,
    seconds: int = SECONDS,
) -> Iterator[Any]:
    """Run a script of this folder on a file.

    Parameters
    ----------
    script : str
        Name of the script in this folder.
    path : Path
        For messages.
    stream : binary file
        The file, which is the standard input of the process.
    arguments : dict
        Arguments for the script, passed as JSON.
    memory : int
        Bytes that it may take after its modules are imported.
    seconds : int
        Seconds of computing after that.

    Yields
    ------
    object
        Each line that it prints, parsed as JSON.

    Raises
    ------
    FileError
        If the script refuses the file, crashes, or exceeds a limit.
    """
    told = {"path": sys.path, "memory": memory, "seconds": seconds} | arguments
    # Isolated, so that nothing in the current folder is imported; paths are passed explicitly.
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
