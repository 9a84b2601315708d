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
from typing import NamedTuple

from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.frameworks import COMPILING, framework_of, wide
from lcmulti.conformance.certify.subject import Subject
from lcmulti.conformance.inputs import draw

__all__ = ["Ahead", "Program"]

DISTANCE = 4
"""How many calls are begun before they are asked for."""


class Program(NamedTuple):
    """A program that is compiled once for all checks that use it."""

    subject: Subject
    case: Case
    dtype: str

    @property
    def call(self) -> tuple[Case, str]:
        """What it computes. Implementations may compute it by the same program."""
        return self.case, self.dtype


class Ahead:
    """Compiles the programs of a list in order, a few of them ahead of the running check.

    Those of one call are compiled one after the other: then what one has compiled serves the next.

    Parameters
    ----------
    backend : str
    programs : sequence of Program
        In the order in which they will be used; a program may be in it several times.
    """

    def __init__(self, backend: str, programs: Sequence[Program]) -> None:
        self.begun: dict[tuple[Case, str], Future[None]] = {}
        unique: dict[tuple[Case, str], dict[Program, None]] = {}
        for each in programs:
            unique.setdefault(each.call, {})[each] = None
        self.known, self.pending = frozenset(unique), list(unique.values())[::-1]
        self.pool: ThreadPoolExecutor | None = None
        if framework_of(backend) in COMPILING and len(programs) > 1:
            self.pool = ThreadPoolExecutor(os.cpu_count() or 1)

    def wait(self, program: Program) -> None:
        """Return when a program has been compiled, or its compilation has failed."""
        if self.pool is None or program.call not in self.known:
            return
        while self.pending and (program.call not in self.begun or self._running() < DISTANCE):
            following, context = list(self.pending.pop()), contextvars.copy_context()
            self.begun[following[0].call] = self.pool.submit(context.run, _compute, following)
        self.begun[program.call].result()

    def stop(self) -> None:
        """Begin no other program."""
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)

    def _running(self) -> int:
        return sum(not each.done() for each in self.begun.values())


def _compute(programs: Sequence[Program]) -> None:
    """Run the programs of one call, all on the same inputs."""
    case, dtype = programs[0].call
    with suppress(Exception):
        inputs = draw(case, dtype)
        for each in programs:
            with suppress(Exception), wide(each.subject.backend, dtype):
                each.subject.results(case, inputs)
