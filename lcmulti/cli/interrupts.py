"""Let an interrupt end a command, wherever it arrives."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["heard_interrupts"]

DELAY = 0.05
"""Seconds until an interrupt that was ignored arrives again, outside the code that ignored it."""


@contextmanager
def heard_interrupts() -> Iterator[None]:
    """Repeat an interrupt that Python ignores.

    Python ignores what is raised in a callback of its garbage collector or in ``__del__``. JAX has
    such a callback, so that Ctrl-C would often be lost while JAX or TensorFlow is imported.
    """
    before = sys.unraisablehook

    def hook(ignored: sys.UnraisableHookArgs) -> None:
        if not issubclass(ignored.exc_type, KeyboardInterrupt):
            before(ignored)
            return
        again = threading.Timer(DELAY, _interrupt)
        again.daemon = True
        again.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _interrupt() -> None:
    """Interrupt the main thread, also while it waits."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()
