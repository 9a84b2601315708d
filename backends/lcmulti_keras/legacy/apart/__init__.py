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
from pathlib import Path
from typing import Any, BinaryIO

from lcmulti.errors import FileError

__all__ = ["run_apart"]

MEBIBYTE = 2**20
SECONDS = 4
"""Of computing; a sound file of 4,000 layers takes one."""
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
) -> dict[str, Any]:
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
    try:
        assert process.stdout is not None
        said = process.stdout.read(MOST_SAID + 1)
    finally:
        watch.cancel()
        process.kill()
        process.communicate()
    code = process.returncode
    try:
        if len(said) > MOST_SAID:
            raise ValueError
        answer = json.loads(said)
    except ValueError:
        raise FileError(path, f"is damaged, or made to do harm: {_end(code)}") from None
    if "refused" in answer:
        raise FileError(path, str(answer["refused"]))
    found: dict[str, Any] = answer
    return found


def _end(code: int) -> str:
    reading = "the process that read it"
    if code in (-getattr(signal, "SIGXCPU", 24), -getattr(signal, "SIGKILL", 9)):
        return f"{reading} came to no end"
    if code < 0:
        return f"{reading} crashed"
    return f"{reading} gave up"
