"""Hide the messages that TensorFlow prints when it starts, which are not meant for users."""

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
NOISE = (
    rb"WARNING: All log messages before absl::InitializeLog|[%b]\d{4} \d\d:\d\d:\d\d\.|[%b]0000 00:"
    rb"|To enable the following instructions: |\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [%b] "
)
"""How lines of some levels begin that C++ libraries write."""
LEVELS = {"1": b"I", "2": b"IW"}
"""The levels that a value of the variable hides; larger values hide the same, and errors too."""


@contextmanager
def without_noise() -> Iterator[None]:
    """Pass on what C++ code writes to standard error, except start-up notes and warnings.

    TensorFlow writes some of them before any of its settings can stop it. If the user sets
    ``TF_CPP_MIN_LOG_LEVEL``, nothing is hidden that this variable allows.
    """
    chosen = os.environ.get(LEVEL)
    hidden = LEVELS.get(chosen or "3", b"IW")
    if chosen == "0":
        yield
        return
    os.environ[LEVEL] = chosen or "3"
    # TensorFlow also warns of retracing, which these commands do on purpose.
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        terminal = os.dup(2)
    except OSError:  # the process has no standard error
        yield
        return
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    thread = threading.Thread(target=_pass_on, args=(reading, terminal, hidden), daemon=True)
    thread.start()
    before = sys.stderr
    # Python's own messages go to the terminal directly, without the filter.
    if _writes_to(before, 2):
        sys.stderr = io.TextIOWrapper(
            os.fdopen(os.dup(terminal), "wb"), before.encoding, before.errors, line_buffering=True
        )
    try:
        yield
    finally:
        if sys.stderr is not before:
            sys.stderr.close()
            sys.stderr = before
        os.dup2(terminal, 2)
        thread.join(timeout=1)  # a process that outlives this one may hold the other end open
        if chosen is None:
            os.environ.pop(LEVEL, None)


def _writes_to(stream: object, descriptor: int) -> bool:
    with suppress(OSError, ValueError, AttributeError):
        return bool(stream.fileno() == descriptor)  # type: ignore[attr-defined]
    return False


def _pass_on(reading: int, terminal: int, hidden: bytes) -> None:
    noise = re.compile(NOISE % ((hidden,) * 3))
    with os.fdopen(reading, "rb") as lines, suppress(OSError):
        for line in lines:
            if not noise.match(line):
                os.write(terminal, line)
