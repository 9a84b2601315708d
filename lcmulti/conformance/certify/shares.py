"""A certification by several processes, each of which makes a share of the checks.

Every process collects all checks, and must find the same ones. It runs its share of them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from xml.etree import ElementTree

from lcmulti.conformance.certify.asked import Asked, Share
from lcmulti.conformance.certify.result import Failure
from lcmulti.conformance.certify.session import Outcome, make

__all__ = ["certified_by"]


class _Other(NamedTuple):
    """Another process, its share, and the pipe through which its outcome comes."""

    process: multiprocessing.process.BaseProcess
    share: Share
    outcome: Connection


def certified_by(processes: int, asked: Asked, say: Callable[[str], None]) -> Outcome:
    """Make all checks in this process and `processes - 1` others, and add up what came of them.

    Parameters
    ----------
    processes : int
    asked : Asked
    say : callable
        Is told that this process waits for others, and what they print of failed checks.

    Raises
    ------
    ArgumentError
        If pytest refuses an argument.
    """
    with TemporaryDirectory() as folder:
        shares = [Share(number, processes) for number in range(1, processes + 1)]
        reports = [Path(folder, f"{each.number}.xml") for each in shares[1:]]
        others = [
            _started(share, asked if asked.junit is None else asked._replace(junit=str(report)))
            for share, report in zip(shares[1:], reports, strict=True)
        ]
        try:
            whole = make(asked, shares[0])
            if others and not whole.is_interrupted:
                say(f"waiting for {len(others)} more, with the other checks")
            for each in others:
                _add(whole, each, say)
        finally:
            for each in others:
                each.process.kill()
                each.process.join()
        if asked.junit is not None:
            _join(Path(asked.junit), reports)
    return whole


def _started(share: Share, asked: Asked) -> _Other:
    # A forked child would have the parent's framework, whose threads are gone.
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(there, share, asked))
    process.start()
    there.close()
    return _Other(process, share, here)


def _send(outcome: Connection, share: Share, asked: Asked) -> None:
    # An interrupt reaches both processes; the parent decides, and ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    outcome.send(make(asked._replace(quiet=True), share))


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _add(whole: Outcome, other: _Other, say: Callable[[str], None]) -> None:
    """Add what came of another process' checks; those of a process that has ended did not run."""
    name = f"process {other.share.number} of {other.share.of}"
    checks = whole.sizes[other.share.number - 1]
    came: Outcome | None = None
    if not whole.is_interrupted:
        try:
            came = other.outcome.recv()
        except EOFError:
            other.process.join()
            ended = f"ended with exit code {other.process.exitcode} before its checks did"
            whole.result.failures.append(Failure(name, ended))
        except KeyboardInterrupt:
            whole.is_interrupted = True
    if came is None:
        whole.result.not_run += checks
        return
    if came.collected != whole.collected:
        whole.result.failures.append(Failure(name, "collected other checks than process 1"))
    if came.result.failures:
        say(f"\n{name}:\n{came.said}")
    whole.result.add(came.result)


def _join(target: Path, others: Sequence[Path]) -> None:
    """Add the test cases of other JUnit files, and their counts, to those of *target*."""
    if not target.exists():
        return
    tree = ElementTree.parse(target)
    suite = tree.find("testsuite")
    for each in others:
        if suite is None or not each.exists():
            continue
        more = ElementTree.parse(each).find("testsuite")
        if more is not None:
            suite.extend(more)
            for count in ("tests", "failures", "errors", "skipped"):
                suite.set(count, str(int(suite.get(count, 0)) + int(more.get(count, 0))))
    tree.write(target, encoding="utf-8", xml_declaration=True)
