"""Compile programs ahead of the checks that need them, in one thread for each core.

With a framework that compiles, a check spends most of its time waiting for compilers, which work
one after the other. So the calls of the next checks are made before them, in parallel. The results
are dropped; the compiled programs stay.
"""

from __future__ import annotations

import contextvars
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.frameworks import COMPILING, framework_of, wide
from lcmulti.conformance.certify.subject import Subject
from lcmulti.conformance.inputs import draw

__all__ = ["Ahead", "Program"]

DISTANCE = 6
"""How many programs are begun before they are asked for."""


class Program(NamedTuple):
    """A program that is compiled once for all checks that use it."""

    subject: Subject
    case: Case
    dtype: str

    @property
    def key(self) -> tuple[Any, ...]:
        """What identifies it."""
        return self.subject, self.case.group, self.case.name, self.dtype


class Ahead:
    """Compiles the programs of a list in order, a few of them ahead of the running check.

    Parameters
    ----------
    backend : str
    programs : sequence of Program
        In the order in which they will be used; a program may be in it several times.
    """

    def __init__(self, backend: str, programs: Sequence[Program]) -> None:
        self.begun: dict[tuple[Any, ...], Future[None]] = {}
        unique = {each.key: each for each in programs}
        self.known, self.pending = frozenset(unique), list(unique.values())[::-1]
        self.pool: ThreadPoolExecutor | None = None
        if framework_of(backend) in COMPILING and len(self.pending) > 1:
            self.pool = ThreadPoolExecutor(os.cpu_count() or 1)

    def wait(self, program: Program) -> None:
        """Return when a program has been compiled, or its compilation has failed."""
        if self.pool is None or program.key not in self.known:
            return
        while self.pending and (program.key not in self.begun or self._running() < DISTANCE):
            following, context = self.pending.pop(), contextvars.copy_context()
            self.begun[following.key] = self.pool.submit(context.run, _compute, following)
        self.begun[program.key].result()

    def stop(self) -> None:
        """Begin no other program."""
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)

    def _running(self) -> int:
        return sum(not each.done() for each in self.begun.values())


def _compute(program: Program) -> None:
    with suppress(Exception), wide(program.subject.backend, program.dtype):
        program.subject.results(program.case, draw(program.case, program.dtype))
