"""Keep what TensorFlow says as it starts, to nobody, from whoever reads the terminal."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["without_noise"]

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
NOISE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog|[IW]\d{4} \d\d:\d\d:\d\d\.|[IW]0000 00:"
    rb"|To enable the following instructions: |\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IW] "
)
"""Beginnings of lines that libraries in C++ write below the level of errors."""


@contextmanager
def without_noise() -> Iterator[None]:
    """Pass on what C++ writes to standard error, but for notes and warnings of its start.

    TensorFlow writes some before any setting of its own can stop it. Who sets
    ``TF_CPP_MIN_LOG_LEVEL`` sees all that it lets through.
    """
    if LEVEL in os.environ:
        yield
        return
    os.environ[LEVEL] = "3"
    for name in ("tensorflow", "absl"):  # retracing, which is what our commands are for
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        terminal = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    thread = threading.Thread(target=_pass_on, args=(reading, terminal), daemon=True)
    thread.start()
    before = sys.stderr
    if _writes_to(before, 2):  # Python's own messages need no filter, and may be for a terminal
        sys.stderr = io.TextIOWrapper(
            os.fdopen(os.dup(terminal), "wb", 0), before.encoding, before.errors, write_through=True
        )
    try:
        yield
    finally:
        if sys.stderr is not before:
            sys.stderr.close()
            sys.stderr = before
        os.dup2(terminal, 2)
        thread.join(timeout=1)  # a process that is left behind may hold the other end
        os.environ.pop(LEVEL, None)


def _writes_to(stream: object, descriptor: int) -> bool:
    with suppress(OSError, ValueError, AttributeError):
        return bool(stream.fileno() == descriptor)  # type: ignore[attr-defined]
    return False


def _pass_on(reading: int, terminal: int) -> None:
    with os.fdopen(reading, "rb") as lines, suppress(OSError):
        for line in lines:
            if not NOISE.match(line):
                os.write(terminal, line)
